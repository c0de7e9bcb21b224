public import NetPrimitives

/// One `networkPolicy`: an ordered list of rules, the first match of which decides, and what happens when none matches.
public struct Policy: Hashable, Sendable {
    /// Whether denials are carried out or only recorded.
    public enum Mode: String, Hashable, Sendable, CaseIterable {
        /// Denials are carried out.
        case enforce
        /// Everything but guard ranges passes; would-be denials are recorded.
        case report
    }

    /// What happens to whatever no rule matches.
    public var defaultAction: RuleAction
    /// Whether denials are carried out.
    public var mode: Mode
    /// The rules in order of precedence.
    public var rules: [Rule]
    /// What is allowed besides until the policy is locked; `nil` when there is no such phase, or it is over.
    public var setup: SetupPhase?

    /// A policy from its parts; with none, everything is denied.
    public init(
        defaultAction: RuleAction = .deny,
        mode: Mode = .enforce,
        rules: [Rule] = [],
        setup: SetupPhase? = nil
    ) {
        self.defaultAction = defaultAction
        self.mode = mode
        self.rules = rules
        self.setup = setup
    }
}

/// What a rule, or the absence of one, does.
public enum RuleAction: String, Hashable, Sendable, CaseIterable {
    /// The flow is permitted.
    case allow
    /// The flow is refused.
    case deny
}

/// One line of a policy's `egress` list.
public struct Rule: Hashable, Sendable {
    /// What the rule does when it matches.
    public var action: RuleAction
    /// The names or addresses it speaks of.
    public var target: Target
    /// The ports it covers; empty means every port.
    public var ports: [PortRange]
    /// The transport protocol it covers; `nil` means any.
    public var transport: TransportProtocol?
    /// Whether the rule says `any` in words instead of leaving the protocol out. Only then, or where it says `udp`, does
    /// an allowing rule about names open UDP: on the ports it lists, without a name being seen there.
    public var statesAnyTransport: Bool
    /// From when on the rule no longer exists; `nil` means never.
    public var expiresAt: WallTime?
    /// Free text for people.
    public var comment: String?

    /// A rule from its parts.
    public init(
        _ action: RuleAction,
        _ target: Target,
        ports: [PortRange] = [],
        transport: TransportProtocol? = nil,
        statesAnyTransport: Bool = false,
        expiresAt: WallTime? = nil,
        comment: String? = nil
    ) {
        self.action = action
        self.target = target
        self.ports = ports
        self.transport = transport
        self.statesAnyTransport = statesAnyTransport
        self.expiresAt = expiresAt
        self.comment = comment
    }
}

/// Operator rules around every policy: `deny` first, then `allow`, then the policy's own, and `answers` behind those,
/// before the policy's set-up phase.
public struct AlwaysRules: Hashable, Sendable {
    /// Rules that no policy can open.
    public var deny: [Rule]
    /// Rules that no policy can close.
    public var allow: [Rule]
    /// What somebody who was asked has allowed for always: names that no other rule speaks of, and never addresses.
    public var answers: [Rule]

    /// Rules from their parts.
    public init(deny: [Rule] = [], allow: [Rule] = [], answers: [Rule] = []) {
        self.deny = deny
        self.allow = allow
        self.answers = answers
    }
}
