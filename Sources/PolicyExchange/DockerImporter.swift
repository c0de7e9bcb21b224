import EgressPolicy
import NetPrimitives
import PolicyDocument

/// The proxy configuration of a Docker sandbox: the command line `docker sandbox network proxy NAME OPTION…`, or the file
/// `proxy-config.json` that it writes.
///
/// Read from Docker's pages "Network policies" (docs.docker.com/ai/sandboxes/network-policies) and `docker sandbox network
/// proxy` (docs.docker.com/reference/cli); the file's fields from one that the command wrote:
///
/// * The most specific pattern decides: a host with a port, a host, wildcards from the longest, with a port first, `*:port`,
///   `*`, and then the policy.
/// * `*.example.com` is every subdomain, and not `example.com`. A host without a port is meant on every port.
/// * Addresses are held against the blocked CIDRs; private and local ones are blocked from the start. The pages differ on
///   whether that holds for hosts that are explicitly allowed: it is taken to.
/// * Only HTTP and HTTPS pass. On ports other than 80 and 443 that cannot be told from other protocols here, so hosts
///   without a port are allowed on these two.
enum DockerImporter {
    static func read(_ bytes: [UInt8], _ reader: inout ImportReader) throws(DocumentError) {
        let isFile = bytes.first { !" \t\r\n".utf8.contains($0) } == UInt8(ascii: "{")
        var configuration: DockerConfiguration
        if isFile || reader.file.hasSuffix(".json") {
            configuration = DockerConfiguration(file: try reader.tree(bytes), &reader)
        } else {
            configuration = DockerConfiguration(commandLine: bytes, &reader)
        }
        guard reader.problems.isEmpty else { return }
        configuration.write(&reader)
    }
}

/// What the proxy is told, however it is written.
private struct DockerConfiguration {
    struct Pattern {
        let action: RuleAction
        let element: ImportReader.Element
        let host: String
        let port: PortRange?
    }

    private var policy: RuleAction?
    private var policyPosition = DocumentNode.Position()
    private var patterns: [Pattern] = []
    private var blocked: [(prefix: IPPrefix, isDefault: Bool)] = []
    private var bypasses: [ImportReader.Element] = []

    /// What a new sandbox blocks.
    private static let defaults = [
        "10.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16", "::1/128", "fc00::/7",
        "fe80::/10",
    ].map { try! IPPrefix(parsing: $0) }
}

// MARK: - The file

extension DockerConfiguration {
    init(file root: DocumentNode, _ reader: inout ImportReader) {
        guard let members = reader.members(of: root, "", known: ["policy", "network"]) else { return }
        if let member = members["policy"], !member.value.isNull {
            let known = ["default", "logBlocked", "logAllowed"]
            if let policy = reader.members(of: member.value, "policy", known: known)?["default"] {
                set(policy.value.text ?? "", at: policy.value.position, "policy.default", &reader)
            }
        }
        guard let network = members["network"], !network.value.isNull else { return }
        let known = [
            "allowedDomains", "blockedDomains", "allowedCIDRs", "blockedCIDRs", "bypassDomains", "bypassCIDRs",
        ]
        guard let lists = reader.members(of: network.value, "network", known: known) else { return }
        for key in known {
            guard let member = lists[key] else { continue }
            for element in reader.strings(of: member.value, "network.\(key)", expected: "strings") {
                switch key {
                case "allowedDomains": host(.allow, element, &reader)
                case "blockedDomains": host(.deny, element, &reader)
                case "blockedCIDRs": block(element, &reader)
                case "allowedCIDRs":
                    reader.report(element.position, element.path, "unknown here: expected blockedCIDRs without these")
                default: bypasses.append(element)
                }
            }
        }
    }

    private mutating func set(
        _ text: String,
        at position: DocumentNode.Position,
        _ path: String,
        _ reader: inout ImportReader
    ) {
        guard let action = RuleAction(rawValue: text) else {
            return reader.report(position, path, "expected allow or deny, found \"\(Excerpt.text(text))\"")
        }
        policy = action
        policyPosition = position
    }

    private mutating func host(_ action: RuleAction, _ element: ImportReader.Element, _ reader: inout ImportReader) {
        guard let (host, port) = reader.endpoint(element) else { return }
        if host != "*", reader.host(host, element.position, element.path) == nil { return }
        patterns.append(Pattern(action: action, element: element, host: host.lowercased(), port: port))
    }

    private mutating func block(_ element: ImportReader.Element, _ reader: inout ImportReader) {
        guard let prefix = reader.prefix(element.text, element.position, element.path) else { return }
        blocked.append((prefix, false))
    }
}

// MARK: - The command line

extension DockerConfiguration {
    init(commandLine bytes: [UInt8], _ reader: inout ImportReader) {
        blocked = Self.defaults.map { ($0, true) }
        readCommand(bytes, &reader)
    }

    private mutating func readCommand(_ bytes: [UInt8], _ reader: inout ImportReader) {
        guard let words = ShellWords.split(bytes, &reader) else { return }
        let start = ["docker", "sandbox", "network", "proxy"]
        let command = words.first?.text == "$" ? words.dropFirst() : words[...]
        guard command.prefix(start.count).map(\.text) == start else {
            let position = command.first?.position ?? .init()
            return reader.report(
                position,
                "",
                "expected docker sandbox network proxy NAME OPTION... or proxy-config.json, found "
                    + (command.first.map { "\"\(Excerpt.text($0.text, limit: 60))\"" } ?? "nothing")
            )
        }
        var rest = command.dropFirst(start.count)
        var names = 0
        while let word = rest.popFirst() {
            guard word.text.hasPrefix("--") else {
                names += 1
                if names > 1 {
                    reader.report(
                        word.position,
                        "",
                        "one command at a time: expected an option, found \"\(Excerpt.text(word.text, limit: 60))\""
                    )
                    return
                }
                continue
            }
            let parts = word.text.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            let option = String(parts[0])
            let value: ImportReader.Element
            if parts.count == 2 {
                value = ImportReader.Element(text: String(parts[1]), position: word.position, path: option)
            } else if let next = rest.popFirst() {
                value = ImportReader.Element(text: next.text, position: next.position, path: option)
            } else {
                return reader.report(word.position, option, "expected a value behind it")
            }
            apply(option, value, &reader)
        }
    }

    private mutating func apply(_ option: String, _ value: ImportReader.Element, _ reader: inout ImportReader) {
        switch option {
        case "--policy": set(value.text, at: value.position, option, &reader)
        case "--allow-host": host(.allow, value, &reader)
        case "--block-host": host(.deny, value, &reader)
        case "--block-cidr": block(value, &reader)
        case "--allow-cidr":
            guard let prefix = reader.prefix(value.text, value.position, value.path) else { return }
            guard blocked.contains(where: { $0.prefix == prefix }) else {
                return reader.note(
                    .leftOut,
                    value.position,
                    option,
                    "it takes a range from the blocked ones, and \(prefix) is none of them as it stands"
                )
            }
            blocked.removeAll { $0.prefix == prefix }
            if prefix.guardRange != nil {
                reader.note(
                    .leftOut,
                    value.position,
                    option,
                    "\(prefix) stays closed but for the addresses that are allowed by themselves"
                )
            }
        case "--bypass-host", "--bypass-cidr": bypasses.append(value)
        default:
            reader.report(
                value.position,
                option,
                "unknown option: expected --policy, --allow-host, --block-host, --allow-cidr, --block-cidr, "
                    + "--bypass-host or --bypass-cidr"
            )
        }
    }
}

// MARK: - Rules

extension DockerConfiguration {
    private static let web = [PortRange(80)!, PortRange(443)!]

    /// How many patterns may speak of every host.
    private static let catchAllLimit = 1_000

    func write(_ reader: inout ImportReader) {
        if let last = patterns.filter({ $0.host == "*" }).dropFirst(Self.catchAllLimit).first {
            let message = "more than \(Self.catchAllLimit) patterns for every host"
            return reader.report(last.element.position, last.element.path, message)
        }
        let blocks = Set(blocked.map(\.prefix))
        if policy == nil {
            reader.note(
                .narrowed,
                policyPosition,
                "policy",
                "not said: taken for deny, whatever the sandbox was told before"
            )
        }
        if !bypasses.isEmpty {
            reader.remark("Nothing to bypass (\(bypasses.count) entries): TLS is never opened here.")
        }
        for (prefix, isDefault) in blocked where !(isDefault || prefix.guardRange != nil) {
            reader.add(Rule(.deny, .addresses(prefix)))
        }
        var isTold = false
        for pattern in patterns.sorted(by: Self.isMoreSpecific) where pattern.host != "*" {
            write(pattern, blocks, &isTold, &reader)
        }
        writeTheRest(&reader)
    }

    private static func isMoreSpecific(_ left: Pattern, _ right: Pattern) -> Bool {
        func rank(_ pattern: Pattern) -> (Int, Int, Int, Int) {
            let isWildcard = pattern.host.hasPrefix("*")
            return (
                isWildcard ? 1 : 0, isWildcard ? -pattern.host.utf8.count : 0, pattern.port == nil ? 1 : 0,
                // Where both stand, the denial counts.
                pattern.action == .deny ? 0 : 1
            )
        }
        return rank(left) < rank(right)
    }

    private func write(_ pattern: Pattern, _ blocks: Set<IPPrefix>, _ isTold: inout Bool, _ reader: inout ImportReader)
    {
        let element = pattern.element
        guard let target = reader.host(pattern.host, element.position, element.path) else { return }
        guard pattern.action == .allow else {
            return reader.add(Rule(.deny, target, ports: pattern.port.map { [$0] } ?? []))
        }
        switch target {
        case .name(let name) where ["localhost", "host.docker.internal"].contains(name.description):
            return reader.note(
                .leftOut,
                element.position,
                element.path,
                "there it is the machine itself; here a rule with the machine's address opens it, and the sandbox's own "
                    + "loopback is always open to it"
            )
        case .addresses(let prefix):
            let around = (0...prefix.length).lazy.map { IPPrefix(prefix.address, length: $0) }
            if let block = around.first(where: blocks.contains) {
                return reader.note(
                    .leftOut,
                    element.position,
                    element.path,
                    "\(prefix) is blocked by \(block); if it is meant all the same: "
                        + PolicyDocument.yaml(
                            of: Rule(.allow, target, ports: pattern.port.map { [$0] } ?? Self.web, transport: .tcp)
                        )
                )
            }
        default: break
        }
        if pattern.port == nil, !isTold {
            isTold = true
            reader.note(
                .narrowed,
                element.position,
                element.path,
                "hosts without a port are allowed on ports 80 and 443, where only HTTP and TLS pass, as in Docker's proxy; "
                    + "on other ports other protocols would pass too: list the ports that are needed"
            )
        }
        reader.add(Rule(.allow, target, ports: pattern.port.map { [$0] } ?? Self.web, transport: .tcp))
    }

    /// What no host says: the catch-all patterns, and the policy.
    private func writeTheRest(_ reader: inout ImportReader) {
        var open = policy == .allow ? Self.web : []
        let patterns = patterns.filter { $0.host == "*" }.sorted(by: Self.isMoreSpecific)
        for pattern in patterns.reversed() {
            let ports = pattern.port.map { [$0] } ?? Self.web
            if pattern.action == .allow {
                open = PortRange.merged(open + ports)
            } else {
                let closed = pattern.port.map { [$0] } ?? [.all]
                open = PortRange.complement(PortRange.complement(open) + closed)
            }
        }
        guard !open.isEmpty else { return }
        reader.remark(
            "The rest passes on ports \(open.map(\.description).joined(separator: ", ")) over TCP: on others, protocols that "
                + "Docker's proxy does not let through would pass."
        )
        reader.defaultAction = .allow
        for family in [IPAddress(v4: 0), IPAddress(v6: 0)] {
            reader.add(Rule(.deny, .addresses(IPPrefix(family, length: 0)), ports: PortRange.complement(open)))
        }
    }
}
