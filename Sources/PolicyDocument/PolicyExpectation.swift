public import EgressPolicy
public import NetPrimitives

/// What the author of a policy expects of it for one destination.
///
/// Written as a destination, `HOST`, `HOST:PORT` or `HOST:PORT/udp` (443 and tcp when left out; an IPv6 address with a
/// port stands in brackets), or as a mapping with `host`, `ip`, `port` and `protocol`.
public struct PolicyExpectation: Hashable, Sendable {
    /// What the policy is expected to do.
    public var action: RuleAction
    /// The destination. Without an address, rules about addresses cannot match.
    public var flow: Flow
    /// The destination as it was written.
    public var text: String
    /// The line it stands in, from 1.
    public var line: Int
    /// Whether it is of the policy's set-up phase, rather than of what a lock leaves.
    public var isOfSetup = false

    /// An expectation from its parts.
    public init(_ action: RuleAction, _ flow: Flow, text: String, line: Int) {
        self.action = action
        self.flow = flow
        self.text = text
        self.line = line
    }

    /// What the policy does with the destination, report mode aside. A name that would not be resolved is denied,
    /// whatever would become of a connection.
    public func verdict(of policy: CompiledPolicy, at time: WallTime) -> Verdict {
        let verdict = policy.decide(flow, at: time)
        guard verdict.action == .allow, !verdict.isReportOnly, flow.address == nil, let name = flow.name else {
            return verdict
        }
        switch policy.enforcedQuery(name, at: time) {
        case .allow: return verdict
        case .deny(let refusal), .noData(let refusal): return refusal
        }
    }

    /// Whether `verdict` is what was expected.
    public func isMet(by verdict: Verdict) -> Bool {
        (verdict.action == .allow && !verdict.isReportOnly) == (action == .allow)
    }
}

extension PolicyExpectation {
    /// Reads the expectations of a document, in order: the lists `allow` and `deny` below `expect`, or at its top beside
    /// `networkPolicy`; those of the set-up phase below `expect.setup`. Empty when it has none. The error holds all
    /// problems.
    public static func load(
        bytes: [UInt8],
        format: PolicyDocument.Format,
        file: String
    ) throws(DocumentError) -> [PolicyExpectation] {
        guard let root = try PolicyDocument.tree(bytes, format, file) else { return [] }
        var reader = ExpectationReader(file: file)
        let expectations = reader.read(root)
        try PolicyDocument.refuse(reader.problems)
        return expectations
    }
}
