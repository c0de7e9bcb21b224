import Audit
import EgressPolicy
import NetPrimitives

/// What an audit file recorded a policy to have decided, to be held against another one.
struct RecordedDestinations {
    /// A destination, what was decided of it, and the record that says so first.
    struct Destination {
        let action: RuleAction
        /// For a query, of which only the name counts.
        let isQuery: Bool
        let flow: Flow
        let text: String
        let line: Int

        /// What `policy` decides of it, report mode aside.
        func verdict(of policy: CompiledPolicy, at time: WallTime) -> Verdict {
            guard isQuery, let name = flow.name else { return policy.decide(flow, at: time) }
            switch policy.enforcedQuery(name, at: time) {
            case .allow: return Verdict(.allow, .rule)
            case .deny(let verdict), .noData(let verdict): return verdict
            }
        }
    }

    private struct Key: Hashable {
        let action: RuleAction
        let isQuery: Bool
        let flow: Flow
    }

    /// Denials for these reasons are the policy's; the others are the same whatever it says.
    private static let reasons: Set<String> = ["rule", "default", "expired-rule"]

    /// Each destination once, in the order of the file.
    let destinations: [Destination]

    /// Reads the file at `path`; lines that are no records are passed over.
    init(path: String) throws(AuditError) {
        let reader = try AuditReader(path: path)
        var known: Set<Key> = []
        var destinations: [Destination] = []
        while let line = try reader.next() {
            guard let record = try? AuditLine(parsing: line.bytes), let key = Self.key(of: record),
                known.insert(key).inserted
            else { continue }
            destinations.append(
                Destination(
                    action: key.action,
                    isQuery: key.isQuery,
                    flow: key.flow,
                    text: Self.text(of: key),
                    line: Int(clamping: line.number)
                )
            )
        }
        self.destinations = destinations
    }

    /// The positions of the policy's rules that something recorded matches: the rule that decides a connection, and each
    /// rule about a name that was asked for.
    func rules(of policy: CompiledPolicy, at time: WallTime) -> Set<Int> {
        var matched: Set<Int> = []
        for destination in destinations {
            if destination.isQuery, let name = destination.flow.name {
                for (index, rule) in policy.policy.rules.enumerated() where rule.target.covers(.name(name)) {
                    matched.insert(index)
                }
            } else if let rule = policy.decide(destination.flow, at: time).rule, rule.source == .policy {
                matched.insert(rule.index)
            }
        }
        return matched
    }

    private static func key(of record: AuditLine) -> Key? {
        guard record.event.hasPrefix("dns.") || record.event.hasPrefix("connection."),
            record.event != "connection.closed",
            let recorded = record.verdict.flatMap(RuleAction.init(rawValue:))
        else { return nil }
        let action: RuleAction = record.isReportOnly ? .deny : recorded
        guard action == .allow || reasons.contains(record.reason ?? "") else { return nil }
        let name = record.host.flatMap { try? DomainName($0) }
        let address = record.address.flatMap { IPAddress($0) }
        guard record.host == nil || name != nil, name != nil || address != nil else { return nil }
        if record.event.hasPrefix("dns.") {
            return Key(
                action: action,
                isQuery: true,
                flow: Flow(name: name, address: nil, port: 53, transport: .udp)
            )
        }
        guard let port = record.port.flatMap({ UInt16(exactly: $0) }), ["tcp", "udp"].contains(record.protocolName)
        else {
            return nil
        }
        let transport: TransportProtocol = record.protocolName == "udp" ? .udp : .tcp
        return Key(
            action: action,
            isQuery: false,
            flow: Flow(name: name, address: address, port: port, transport: transport)
        )
    }

    private static func text(of key: Key) -> String {
        let name = key.flow.name.map { "\($0)" }
        if key.isQuery { return "the query for \(name ?? "")" }
        let place = key.flow.address.map { $0.family == .v6 ? "[\($0)]" : "\($0)" }
        let host = name.map { name in place.map { "\(name) at \($0)" } ?? name } ?? place ?? ""
        return "\(host):\(key.flow.port)/\(key.flow.transport)"
    }
}
