public import EgressPolicy
public import NetPrimitives

/// A verdict with all that a person or script wants to know of it.
public struct Explanation {
    private let verdict: Verdict
    private let query: QueryVerdict?
    private let host: String?
    private let address: IPAddress?
    private let port: UInt16
    private let transport: TransportProtocol
    private let skipsAddressRules: Bool
    /// What each rule has to say; `nil` unless it was asked for.
    private let trace: [RuleTrace]?
    private let guardRange: IPPrefix?
    private let defaultAction: RuleAction
    /// What the lock will make of it, and when at the latest; `nil` where it makes no difference.
    private let locked: (verdict: Verdict, endsAt: WallTime)?

    /// Judges a destination as it would be at `now`; verbose, with what each rule has to say of it. `host` may be an address, as in a URL; a host that is neither is denied as it is on
    /// the wire.
    public init(
        of policy: CompiledPolicy,
        host: String?,
        address: IPAddress?,
        port: UInt16,
        transport: TransportProtocol,
        at now: WallTime,
        isVerbose: Bool = false
    ) {
        let literal = host.flatMap { IPAddress($0) }
        let name = literal == nil ? host.flatMap { try? DomainName($0) } : nil
        self.host = name?.description ?? (literal == nil ? host : nil)
        self.address = address ?? literal
        self.port = port
        self.transport = transport
        defaultAction = policy.policy.defaultAction
        if self.host != nil, name == nil {
            verdict = Verdict(.deny, .malformedName)
            query = nil
            skipsAddressRules = false
            (trace, guardRange, locked) = (nil, nil, nil)
            return
        }
        let flow = Flow(name: name, address: self.address, port: port, transport: transport)
        verdict = policy.decide(flow, at: now)
        query = name.map { policy.decideQuery($0, at: now) }
        trace = isVerbose ? policy.trace(flow, at: now) : nil
        guardRange = self.address.flatMap { policy.guards.range(around: $0) }
        let action = verdict.action
        locked = policy.policy.setup.flatMap { phase in
            let later = policy.locked().decide(flow, at: now)
            return later.action == action ? nil : (verdict: later, endsAt: phase.endsAt)
        }
        skipsAddressRules =
            self.address == nil
            && (policy.always.deny + policy.always.allow + policy.policy.unphased.rules).contains {
                if case .addresses = $0.target { true } else { false }
            }
    }

    /// The lines for a person; the first is the verdict alone.
    public var lines: [String] {
        var lines = [verdict.action.rawValue]
        lines.append("rule: \(verdict.rule?.place ?? "none")")
        lines.append("reason: \(verdict.reason.rawValue) (\(reasonText))")
        lines.append("flow: \(destination)")
        if let query { lines.append("dns: \(text(of: query))") }
        lines += notes.map { "note: \($0)" }
        return lines + traceLines
    }

    /// The steps in the order in which they are taken: guard ranges, every rule, the default.
    private var traceLines: [String] {
        guard let trace else { return [] }
        var lines = ["trace:"]
        if address != nil {
            lines.append("  guard ranges: " + (guardText ?? "the address lies in none"))
        }
        lines += trace.map { "  \($0.rule.place): \($0.outcome.phrase)" }
        let isReached = verdict.reason == .default || verdict.reason == .expiredRule
        lines.append("  defaultAction \(defaultAction.rawValue): " + (isReached ? "decides" : "not reached"))
        return lines
    }

    private var guardText: String? {
        guardRange.map { range in
            let isClosed = verdict.reason == .guardRange
            return "the address lies in \(range), "
                + (isClosed ? "which no rule inside it opens" : "which a rule inside it opens")
        }
    }

    private var reasonText: String {
        switch (verdict.reason, verdict.action) {
        case (.rule, .allow) where !verdict.isReportOnly: "allowed by a rule"
        case (.default, .allow) where !verdict.isReportOnly: "no rule matches; the policy's defaultAction is allow"
        case (.default, _): "no rule matches; the policy's defaultAction is deny"
        default: verdict.reason.phrase
        }
    }

    private var destination: String {
        let name = host.map { $0.unicodeScalars.map { $0.escaped(asASCII: true) }.joined() }
        let place = address.map { $0.family == .v6 ? "[\($0)]" : "\($0)" }
        let target = name.map { name in place.map { "\(name) at \($0)" } ?? name } ?? place ?? ""
        return "\(target):\(port)/\(transport)"
    }

    private func text(of query: QueryVerdict) -> String {
        switch query {
        case .allow: "answered"
        case .deny: "refused (NXDOMAIN)"
        case .noData: "answered without records, for the sake of names below it"
        }
    }

    private var notes: [String] {
        var notes: [String] = []
        if let locked {
            notes.append(
                "only in set-up, until the lock or \(Timestamp.text(of: locked.endsAt)); then \(locked.verdict.words)"
            )
        }
        if verdict.isReportOnly { notes.append("the policy is in report mode: enforced, it would be denied") }
        if verdict.action == .allow, verdict.basis == .name, !verdict.isReportOnly {
            notes.append("only to an address that was resolved for the name through the sandbox's resolver")
        }
        if skipsAddressRules { notes.append("rules about addresses were not judged; give --ip") }
        if verdict.action == .deny || verdict.isReportOnly, let advice = verdict.reason.advice { notes.append(advice) }
        return notes
    }

    /// The explanation for a script.
    public var document: Document {
        let answer: String? =
            switch query {
            case .allow?: "allow"
            case .deny?: "deny"
            case .noData?: "noData"
            case nil: nil
            }
        return Document(
            verdict: verdict.action.rawValue,
            report: verdict.isReportOnly ? true : nil,
            reason: verdict.reason.rawValue,
            rule: verdict.rule.map { Document.Rule($0) },
            host: host,
            ip: address?.description,
            port: port,
            protocol: transport.description,
            dns: answer,
            notes: notes,
            trace: trace?.map { Document.Step(rule: Document.Rule($0.rule), outcome: $0.outcome.rawValue) },
            guardRange: trace == nil ? nil : guardRange?.description
        )
    }

    /// The members that `--json` prints, named as in audit records; what there is none of is absent.
    public struct Document: Encodable, Sendable {
        struct Rule: Encodable, Sendable {
            let index: Int
            let action: String
            let target: String
            let source: String?

            init(_ rule: RuleReference) {
                index = rule.index
                action = rule.action.rawValue
                target = rule.target.description
                source = rule.source.listName
            }
        }

        struct Step: Encodable, Sendable {
            let rule: Rule
            let outcome: String
        }

        let verdict: String
        let report: Bool?
        let reason: String
        let rule: Rule?
        let host: String?
        let ip: String?
        let port: UInt16
        let `protocol`: String
        let dns: String?
        let notes: [String]
        let trace: [Step]?
        let guardRange: String?
    }
}

extension Verdict {
    /// `deny (default)`.
    fileprivate var words: String { "\(action.rawValue) (\(reason.rawValue))" }
}

extension RuleTrace.Outcome {
    fileprivate var phrase: String {
        switch self {
        case .decides: "decides"
        case .matches: "would match, but what stands before it decides"
        case .noName: "does not match: it speaks of names, and there is none"
        case .noAddress: "not judged: it speaks of addresses, and none is given"
        case .target: "does not match: another target"
        case .transport: "does not match: another protocol"
        case .udpNotAsked: "does not match: for a name UDP must be asked for, with ports"
        case .ports: "does not match: other ports"
        case .expired: "would match, but has expired"
        }
    }
}
