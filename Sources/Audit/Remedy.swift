public import EgressCore
public import EgressPolicy
public import NetPrimitives

/// What would let a refused thing pass: one rule and the place where it has to stand, or words where no rule should.
///
///     record ──▶ a reason that no rule helps against? ──▶ advice
///        │ no
///        ▼
///     the policy in force, asked again ──▶ allows it by now ──▶ nothing to do
///        │ denies it still
///        ▼
///     the narrowest rule, before the rule that denies or behind all of them ──▶ asked once more: only what helps is said
public enum Remedy: Sendable {
    /// A rule that allows what was refused, and no more than that.
    case rule(Proposal)
    /// The policy in force allows it already.
    case allowed
    /// Why no rule would help, or should, and what can be done instead.
    case advice(String)

    /// A rule and its place.
    public struct Proposal: Hashable, Sendable {
        /// The rule.
        public let rule: Rule
        /// The rule of the policy before which it has to stand; as many as there are rules for behind all of them.
        public let index: Int
        /// The rule that refuses; `nil` where none speaks of it.
        public let refusal: RuleReference?
        /// What has to be known of the rule.
        public let remark: String?
    }

    /// The remedy for what `event` tells of, under the policy that is in force now.
    public init(for event: AuditEvent, under policy: CompiledPolicy, at time: WallTime) {
        if let advice = event.verdict?.reason.advice {
            self = .advice(advice)
            return
        }
        guard let refused = Refused(event) else {
            self = .advice(Self.whyNoRule(for: event))
            return
        }
        // In report mode, too, it is asked what enforcement would do.
        func judged(_ rules: [Rule]) -> Verdict {
            let asked = Policy(defaultAction: policy.policy.defaultAction, rules: rules)
            return refused.verdict(of: CompiledPolicy(asked, always: policy.always, guards: policy.guards), at: time)
        }
        let rules = policy.policy.rules
        let verdict = judged(rules)
        guard verdict.action == .deny else {
            self = .allowed
            return
        }
        if let advice = verdict.reason.advice {
            self = .advice(advice)
            return
        }
        if let rule = verdict.rule, rule.source != .policy {
            self = .advice("\(rule.place): the operator's rules stand before every policy")
            return
        }
        let index = min(verdict.rule?.index ?? rules.count, rules.count)
        var changed = rules
        changed.insert(refused.rule, at: index)
        guard judged(changed).action == .allow else {
            self = .advice("more than one rule stands in its way; look at the policy as a whole")
            return
        }
        let proposal = Proposal(rule: refused.rule, index: index, refusal: verdict.rule, remark: refused.remark)
        self = .rule(proposal)
    }

    private static func whyNoRule(for event: AuditEvent) -> String {
        if let number = event.ipProtocol, TransportProtocol(rawValue: number) == nil, event.layer != .dns {
            return "it is \(protocolName(number)), and a policy can allow only TCP and UDP"
        }
        if let host = event.host, IPAddress(host) == nil, (try? DomainName(host)) == nil {
            return Reason.malformedName.advice ?? ""
        }
        if event.host == nil, let address = event.address, RuleSuggestion.isGuarded(address) {
            return Reason.guardRange.advice ?? ""
        }
        return "the record does not say where it went"
    }
}

/// What was refused, as a policy judges it, and the rule that speaks of it alone.
private struct Refused {
    let rule: Rule
    let remark: String?
    private let flow: Flow
    private let isQuery: Bool

    init?(_ event: AuditEvent) {
        let kind = DenialSummary.Kind(
            destination: Destination(of: event),
            layer: event.layer,
            reason: .default,
            rule: nil,
            isReportOnly: false
        )
        guard let suggestion = RuleSuggestion.suggestions(for: [.init(kind: kind, count: 1)]).first,
            let port = suggestion.ports.first
        else { return nil }
        rule = suggestion.rule
        remark = suggestion.remark
        isQuery = event.layer == .dns
        let name = event.host.flatMap { try? DomainName($0) }
        flow = Flow(name: name, address: event.address, port: port, transport: suggestion.transport)
    }

    func verdict(of policy: CompiledPolicy, at time: WallTime) -> Verdict {
        guard isQuery, let name = flow.name else { return policy.decide(flow, at: time) }
        switch policy.enforcedQuery(name, at: time) {
        case .allow: return Verdict(.allow, .rule)
        case .deny(let verdict), .noData(let verdict): return verdict
        }
    }
}
