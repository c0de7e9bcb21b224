import EgressPolicy
import NetPrimitives

/// What tests write policies and flows with: a short text for a rule, a host for a flow.
enum Sample {
    static let now = WallTime(microseconds: 1_700_000_000_000_000)
    static let past = now.advanced(bySeconds: -1)
    static let future = now.advanced(bySeconds: 60)

    /// `allow *.example.com 443,8000-8100 tcp`; ports and protocol may be missing.
    static func rule(_ text: String, expiresAt: WallTime? = nil) -> Rule {
        let words = text.split(separator: " ").map(String.init)
        var rule = Rule(RuleAction(rawValue: words[0])!, try! Target(parsing: words[1]), expiresAt: expiresAt)
        for word in words.dropFirst(2) {
            switch word {
            case "tcp": rule.transport = .tcp
            case "udp": rule.transport = .udp
            case "any": rule.statesAnyTransport = true
            default: rule.ports = word.split(separator: ",").map { PortRange(parsing: String($0))! }
            }
        }
        return rule
    }

    static func policy(
        _ rules: String...,
        defaultAction: RuleAction = .deny,
        mode: Policy.Mode = .enforce,
        setup: [String] = [],
        always: AlwaysRules = AlwaysRules(),
        nodeAddresses: [IPAddress] = []
    ) -> CompiledPolicy {
        CompiledPolicy(
            Policy(
                defaultAction: defaultAction,
                mode: mode,
                rules: rules.map { rule($0) },
                setup: setup.isEmpty ? nil : SetupPhase(rules: setup.map { rule($0) }, endsAt: future)
            ),
            always: always,
            nodeAddresses: nodeAddresses
        )
    }

    static func flow(
        _ name: String?,
        _ address: String? = "203.0.113.5",
        _ port: UInt16 = 443,
        _ transport: TransportProtocol = .tcp
    ) -> Flow {
        Flow(
            name: name.map { try! DomainName($0) },
            address: address.map { IPAddress($0)! },
            port: port,
            transport: transport
        )
    }
}

extension CompiledPolicy {
    /// `allow rule 0`, `deny default`, … : the verdict in words.
    func words(_ flow: Flow, at time: WallTime = Sample.now) -> String { decide(flow, at: time).words }

    func query(_ name: String, at time: WallTime = Sample.now) -> String {
        switch decideQuery(try! DomainName(name), at: time) {
        case .allow: "allow"
        case .deny(let verdict): verdict.words
        case .noData(let verdict): "nodata, " + verdict.words
        }
    }
}

extension Verdict {
    var words: String {
        var words = "\(action) \(reason.rawValue)"
        switch rule?.source {
        case .policy: words += " \(rule!.index)"
        case .denyAlways: words += " deny.always \(rule!.index)"
        case .allowAlways: words += " allow.always \(rule!.index)"
        case .setup: words += " setup \(rule!.index)"
        case .answers: words += " answers \(rule!.index)"
        case .once: words += " once \(rule!.index)"
        case nil: break
        }
        return isReportOnly ? words + " (report)" : words
    }
}
