public import NetPrimitives

/// What is judged: a connection or datagram flow, by everything known of it.
public struct Flow: Hashable, Sendable {
    /// The name it carries (SNI, Host, CONNECT authority); `nil` when it carries none.
    public var name: DomainName?
    /// The address it goes to; `nil` while it is not resolved.
    public var address: IPAddress?
    /// The port it goes to.
    public var port: UInt16
    /// Its transport protocol.
    public var transport: TransportProtocol

    /// A flow from its parts.
    public init(name: DomainName?, address: IPAddress?, port: UInt16, transport: TransportProtocol) {
        self.name = name
        self.address = address
        self.port = port
        self.transport = transport
    }
}

/// A decision and why it was taken.
public struct Verdict: Hashable, Sendable {
    /// What kind of statement decided; it says what else must be checked. See `policy-semantics`: a flow that a name
    /// rule allows must go to an address pinned for that name; one that an address rule or the default allows goes
    /// where it was going.
    public enum Basis: String, Hashable, Sendable, Codable {
        /// A rule whose target is a name or wildcard.
        case name
        /// A rule whose target is an address or CIDR.
        case address
        /// `defaultAction`, or nothing that the policy says (guard ranges, malformed input).
        case none
    }

    // The large one first: every live connection keeps a verdict, and this order has no gaps.
    /// The rule that decided, if one did.
    public var rule: RuleReference?
    /// Whether the flow may pass.
    public var action: RuleAction
    /// Why.
    public var reason: Reason
    /// What kind of statement decided.
    public var basis: Basis
    /// True when the policy's mode is `report` and `enforce` would have denied: `action` is `.allow`, and `reason`,
    /// `rule` say what would have denied.
    public var isReportOnly: Bool

    /// What a live connection that it let in has shown, for when it is judged again. What report mode let pass has shown
    /// nothing: not even, where a rule speaks of its name, that its address is the name's.
    public var shownBasis: Basis { isReportOnly ? .none : basis }

    /// Whether it is an allowance that somebody gave once.
    public var isOnce: Bool { rule?.source == .once }

    /// A verdict from its parts.
    public init(
        _ action: RuleAction,
        _ reason: Reason,
        rule: RuleReference? = nil,
        basis: Basis = .none,
        isReportOnly: Bool = false
    ) {
        self.action = action
        self.reason = reason
        self.rule = rule
        self.basis = basis
        self.isReportOnly = isReportOnly
    }
}

/// Why a verdict was reached; the raw values are those of the audit record.
public enum Reason: String, Hashable, Sendable, CaseIterable {
    /// A rule matched.
    case rule
    /// No rule matched.
    case `default`
    /// The address lies in a guard range.
    case guardRange = "guard-range"
    /// The address was not pinned for the name.
    case nameAddressMismatch = "name-address-mismatch"
    /// A TLS connection without a server name.
    case noSNI = "no-sni"
    /// Encrypted ClientHello with an outer name that is not allowed.
    case ech
    /// A name that is not one.
    case malformedName = "malformed-name"
    /// A ClientHello or DNS message that breaks its format.
    case malformedHello = "malformed-hello"
    /// An HTTP request that breaks its format or can be read in two ways.
    case malformedHTTP = "malformed-http"
    /// A SOCKS message that breaks its format.
    case malformedSOCKS = "malformed-socks"
    /// SOCKS version 4, a command other than CONNECT, or authentication.
    case unsupportedSOCKS = "unsupported-socks"
    /// Neither TLS nor HTTP on port 80 or 443.
    case opaqueOnWebPort = "opaque-on-web-port"
    /// Nothing that could be judged arrived in time.
    case deadline
    /// Too many distinct names below a wildcard.
    case dnsBudget = "dns-budget"
    /// The rule that would have allowed it has expired.
    case expiredRule = "expired-rule"
    /// The sandbox is paused.
    case paused
    /// The name has no address.
    case unresolvable
    /// The upstream resolver or server could not be reached.
    case upstreamFailed = "upstream-failed"
    /// The sandbox has as many connections as it may have.
    case connectionLimit = "connection-limit"
    /// Too many of the sandbox's queries wait for an answer.
    case queryLimit = "query-limit"
    /// The sandbox has as many TCP clients of DNS as it may have.
    case clientLimit = "client-limit"
    /// The sandbox has as many pinned addresses as it may have.
    case pinLimit = "pin-limit"
    /// The sandbox has as many datagram flows as it may have, or begins them too fast.
    case flowLimit = "flow-limit"
    /// Somebody was asked, and said no.
    case askDenied = "ask-denied"
    /// Somebody was asked, and nobody answered in time.
    case askDeadline = "ask-deadline"
    /// Nobody was asked: too many questions are open already, or were asked lately.
    case askLimit = "ask-limit"
}

/// Which rule decided.
public struct RuleReference: Hashable, Sendable {
    /// The list the rule stands in.
    public enum Source: Hashable, Sendable {
        /// The policy's `egress`.
        case policy
        /// The operator's `deny.always`.
        case denyAlways
        /// The operator's `allow.always`.
        case allowAlways
        /// The `egress` of the policy's set-up phase.
        case setup
        /// What was allowed for always, by somebody who was asked.
        case answers
        /// What was allowed once, by somebody who was asked.
        case once
    }

    /// Its position in its list, from 0.
    public var index: Int
    /// What it speaks of.
    public var target: Target
    /// The list the rule stands in.
    public var source: Source
    /// What it does.
    public var action: RuleAction

    /// A reference from its parts.
    public init(source: Source, index: Int, action: RuleAction, target: Target) {
        self.source = source
        self.index = index
        self.action = action
        self.target = target
    }
}
