import EgressPolicy
import NetPrimitives

/// Makes expectations of a document's tree; finds all problems in one go.
struct ExpectationReader {
    private let file: String
    private(set) var problems: [Problem] = []

    init(file: String) {
        self.file = file
    }

    mutating func read(_ root: DocumentNode) -> [PolicyExpectation] {
        guard case .mapping(let members) = root.value else { return [] }
        guard let section = members.first(where: { $0.key == "expect" }) else {
            return members.filter { $0.key == "allow" || $0.key == "deny" }.flatMap { readList($0, "") }
        }
        guard case .mapping(let lists) = section.value.value else {
            report(section.value, "expect", "expected the lists allow and deny, found \(section.value.kind)")
            return []
        }
        return lists.flatMap { $0.key == "setup" ? readSetup($0) : readList($0, "expect.") }
    }

    /// What is expected of the set-up phase.
    private mutating func readSetup(_ member: DocumentNode.Member) -> [PolicyExpectation] {
        guard case .mapping(let lists) = member.value.value else {
            report(member.value, "expect.setup", "expected the lists allow and deny, found \(member.value.kind)")
            return []
        }
        var expectations = lists.flatMap { readList($0, "expect.setup.") }
        for index in expectations.indices { expectations[index].isOfSetup = true }
        return expectations
    }

    private mutating func report(_ node: DocumentNode, _ path: String, _ message: String) {
        let position = node.position
        problems.append(
            Problem(file: file, line: position.line, column: position.column, path: path, message: message)
        )
    }

    private mutating func readList(_ member: DocumentNode.Member, _ prefix: String) -> [PolicyExpectation] {
        let path = prefix + member.key
        guard let action = RuleAction(rawValue: member.key) else {
            report(DocumentNode(value: .null, position: member.position), path, "unknown key: expected allow or deny")
            return []
        }
        guard !member.value.isNull else { return [] }
        guard case .sequence(let elements) = member.value.value else {
            report(member.value, path, "expected a list of destinations, found \(member.value.kind)")
            return []
        }
        return elements.enumerated().compactMap { readExpectation(action, $1, "\(path)[\($0)]") }
    }

    private mutating func readExpectation(_ action: RuleAction, _ node: DocumentNode, _ path: String)
        -> PolicyExpectation?
    {
        if case .mapping(let members) = node.value { return readMapping(action, node, members, path) }
        guard let text = node.text else {
            report(node, path, "expected a destination such as example.com:443, found \(node.kind)")
            return nil
        }
        guard let flow = Flow(destination: text) else {
            report(node, path, "expected HOST, HOST:PORT or HOST:PORT/udp, found \(node.kind)")
            return nil
        }
        return PolicyExpectation(action, flow, text: text, line: node.position.line)
    }

    private mutating func readMapping(
        _ action: RuleAction,
        _ node: DocumentNode,
        _ members: [DocumentNode.Member],
        _ path: String
    ) -> PolicyExpectation? {
        var flow = Flow(name: nil, address: nil, port: 443, transport: .tcp)
        let before = problems.count
        for member in members {
            let value = member.value
            let text: String? = if case .number(let digits) = value.value { digits } else { value.text }
            let memberPath = "\(path).\(member.key)"
            switch member.key {
            case "host":
                flow.name = text.flatMap { try? DomainName($0) }
                if flow.name == nil { report(value, memberPath, "expected a name, found \(value.kind)") }
            case "ip":
                flow.address = text.flatMap { IPAddress($0) }
                if flow.address == nil { report(value, memberPath, "expected an IP address, found \(value.kind)") }
            case "port":
                guard let port = text.flatMap({ UInt16($0) }), port > 0 else {
                    report(value, memberPath, "expected a port of 1...65535, found \(value.kind)")
                    continue
                }
                flow.port = port
            case "protocol":
                guard let transport = text.flatMap(TransportProtocol.init(name:)) else {
                    report(value, memberPath, "expected tcp or udp, found \(value.kind)")
                    continue
                }
                flow.transport = transport
            default:
                let key = DocumentNode(value: .null, position: member.position)
                let proposal = Spelling.proposal(for: member.key, among: ["host", "ip", "port", "protocol"])
                report(key, memberPath, "unknown key: expected host, ip, port or protocol\(proposal)")
            }
        }
        if flow.name == nil, flow.address == nil, problems.count == before {
            report(node, path, "expected host or ip")
        }
        guard problems.count == before else { return nil }
        return PolicyExpectation(action, flow, text: flow.destination, line: node.position.line)
    }
}

extension TransportProtocol {
    fileprivate init?(name: String) {
        switch name {
        case "tcp": self = .tcp
        case "udp": self = .udp
        default: return nil
        }
    }
}

extension Flow {
    /// Parses `HOST`, `HOST:PORT`, `[IPv6]:PORT`, each with `/tcp` or `/udp` if need be.
    fileprivate init?(destination text: String) {
        var rest = Substring(text)
        var transport = TransportProtocol.tcp
        if let slash = rest.lastIndex(of: "/") {
            guard let named = TransportProtocol(name: String(rest[rest.index(after: slash)...])) else { return nil }
            transport = named
            rest = rest[..<slash]
        }
        var port: UInt16 = 443
        let colons = rest.utf8.count { $0 == UInt8(ascii: ":") }
        if rest.hasPrefix("["), let bracket = rest.lastIndex(of: "]") {
            let behind = rest[rest.index(after: bracket)...]
            rest = rest[rest.index(after: rest.startIndex)..<bracket]
            if !behind.isEmpty {
                guard behind.hasPrefix(":"), let number = UInt16(behind.dropFirst()) else { return nil }
                port = number
            }
        } else if colons == 1, let colon = rest.lastIndex(of: ":") {
            guard let number = UInt16(rest[rest.index(after: colon)...]) else { return nil }
            port = number
            rest = rest[..<colon]
        }
        guard port > 0 else { return nil }
        let host = String(rest)
        if let address = IPAddress(host) {
            self.init(name: nil, address: address, port: port, transport: transport)
        } else if let name = try? DomainName(host) {
            self.init(name: name, address: nil, port: port, transport: transport)
        } else {
            return nil
        }
    }

    /// The destination for a person.
    fileprivate var destination: String {
        let place = address.map { $0.family == .v6 ? "[\($0)]" : "\($0)" }
        let host = name.map { name in place.map { "\(name) at \($0)" } ?? "\(name)" } ?? place ?? ""
        return "\(host):\(port)/\(transport)"
    }
}
