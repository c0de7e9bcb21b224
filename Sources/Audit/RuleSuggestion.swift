import EgressCore
import EgressPolicy
import NetPrimitives

/// A rule that would allow what was refused: as narrow as what was seen, one name or address at a time. It never
/// widens names to a wildcard nor addresses to a block; that is for a person to decide.
struct RuleSuggestion: Hashable {
    var target: Target
    var transport: TransportProtocol
    var ports: [UInt16]
    /// What has to be known of the line.
    var remark: String?

    private static let guards = GuardRanges()

    /// Whether no line is suggested for an address by itself.
    static func isGuarded(_ address: IPAddress) -> Bool { guards.contains(address) }

    /// The rule as a value.
    var rule: Rule { Rule(.allow, target, ports: ports.compactMap { PortRange($0) }, transport: transport) }

    /// The rule as an item of a policy's `egress` list. Targets are quoted: YAML would read some as something else.
    var line: String {
        let ports = ports.map(String.init).joined(separator: ", ")
        let rule = "- {action: allow, target: \"\(target)\", ports: [\(ports)], protocol: \(transport)}"
        return remark.map { "\(rule)  # \($0)" } ?? rule
    }

    /// The rules for what a rule can allow, in the order of `entries`; everything about one name or address and
    /// protocol in one rule.
    static func suggestions(for entries: [DenialSummary.Entry]) -> [RuleSuggestion] {
        var suggestions: [RuleSuggestion] = []
        for entry in entries {
            guard let suggestion = RuleSuggestion(allowing: entry.kind) else { continue }
            let index = suggestions.firstIndex {
                $0.target == suggestion.target
                    && (suggestion.ports.isEmpty || $0.ports.isEmpty || $0.transport == suggestion.transport)
            }
            guard let index else {
                suggestions.append(suggestion)
                continue
            }
            suggestions[index].merge(suggestion)
        }
        return suggestions.map { suggestion in
            guard suggestion.ports.isEmpty else { return suggestion }
            var assumed = suggestion
            assumed.ports = [443]
            assumed.remark = [suggestion.remark, "port assumed: only the name was asked for"]
                .compactMap { $0 }.joined(separator: "; ")
            return assumed
        }
    }

    /// A rule for one kind of refusal; `nil` where a rule would not help or would open more than was asked for.
    /// `ports` is empty where only the name was asked for.
    private init?(allowing kind: DenialSummary.Kind) {
        switch kind.reason {
        case .default, .askDeadline, .askLimit: remark = nil
        case .askDenied: remark = "somebody said no"
        case .rule:
            guard let rule = kind.rule, rule.source == .policy else { return nil }
            remark = "must stand before \(rule.place)"
        default: return nil
        }
        let destination = kind.destination
        if let host = destination.host, let name = try? DomainName(host) {
            target = .name(name)
        } else if let address = destination.host.flatMap({ IPAddress($0) }) ?? destination.address {
            // A line to paste must not be the one that opens a metadata service.
            guard !Self.isGuarded(address) else { return nil }
            target = .addresses(IPPrefix(host: address))
        } else {
            return nil
        }
        if kind.layer == .dns {
            transport = .tcp
            ports = []
            return
        }
        guard let port = destination.port, port > 0,
            let transport = TransportProtocol(rawValue: destination.ipProtocol ?? TransportProtocol.tcp.rawValue)
        else { return nil }
        self.transport = transport
        ports = [port]
    }

    private mutating func merge(_ other: RuleSuggestion) {
        // What only the name was asked for takes the protocol of the connection that was tried as well.
        if ports.isEmpty { transport = other.transport }
        ports = Set(ports + other.ports).sorted()
        remark = remark ?? other.remark
    }
}
