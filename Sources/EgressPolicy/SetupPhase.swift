public import NetPrimitives

/// What a policy allows besides its own rules until it is locked: "install, then lock".
///
/// Its rules stand behind all others and only allow, in a policy that denies by default. So what a lock leaves is decided
/// by the same rules as before, and nothing becomes reachable by one:
///
///     deny.always ▸ allow.always ▸ the policy's rules ▸ answers for always ▸ the phase's rules ▸ deny
///                                                                            └── gone with the lock
public struct SetupPhase: Hashable, Sendable {
    /// The rules, all of which allow.
    public var rules: [Rule]
    /// When the phase is over if nobody ends it sooner.
    public var endsAt: WallTime

    /// How long a phase lasts that does not say it, in seconds.
    public static let usualSeconds: Int64 = 3_600

    /// A phase from its parts.
    public init(rules: [Rule], endsAt: WallTime) {
        self.rules = rules
        self.endsAt = endsAt
    }

    /// The rules as they are compiled: none outlives the phase.
    var boundedRules: [Rule] {
        rules.map { rule in
            var bounded = rule
            bounded.expiresAt = min(rule.expiresAt ?? endsAt, endsAt)
            return bounded
        }
    }
}

extension Policy {
    /// The policy as a lock leaves it: without the set-up phase.
    public var locked: Policy {
        var policy = self
        policy.setup = nil
        return policy
    }

    /// The policy without a lock to come: the phase's rules behind its own, for as long as they say themselves.
    public var unphased: Policy {
        var policy = locked
        policy.rules += setup?.rules ?? []
        return policy
    }

    /// Whether there is a set-up phase that is over at `time`.
    public func hasSetupEnded(at time: WallTime) -> Bool { setup.map { $0.endsAt <= time } ?? false }
}

extension CompiledPolicy {
    /// The policy as a lock leaves it, within the same ranges; of the same generation unless another one is given.
    public func locked(generation: UInt64? = nil) -> CompiledPolicy {
        CompiledPolicy(
            policy.locked,
            always: always,
            guards: guards,
            generation: generation ?? self.generation,
            once: once
        )
    }
}
