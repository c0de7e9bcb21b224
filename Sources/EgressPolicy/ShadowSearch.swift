import NetPrimitives

/// Looks whether the rules before one rule of a policy leave it anything to decide.
struct ShadowSearch {
    private let position: Int
    private let rule: Rule
    private let compiled: CompiledRule
    private let listed: [Rule]
    private let policy: CompiledPolicy
    // What does not depend on the earlier rule, and is looked for once at most.
    private lazy var keepsGuardRangeClosed = findKeptGuardRange()
    private lazy var hasOtherAllowance = findOtherAllowance()

    /// A search for the rule at `position` of `listed`, the rules of `policy` with those of its set-up phase.
    init(for position: Int, in listed: [Rule], of policy: CompiledPolicy) {
        self.position = position
        self.listed = listed
        self.policy = policy
        rule = listed[position]
        compiled = policy.compiledRule(position)
    }

    /// The first of `earlier` that takes everything from the rule. Each matches all that the rule matches.
    mutating func behindOne(of earlier: [Int]) -> RuleShadow? {
        for earlier in earlier {
            let (other, cover) = (listed[earlier], policy.compiledRule(earlier))
            let mayLeaveDatagrams = isThoughtOfAsTCP && other.action == .allow
            guard cover.expiry >= compiled.expiry,
                cover.coversAll(of: mayLeaveDatagrams ? compiled.overTCPAlone : compiled),
                let remainder = remainder(behind: other)
            else { continue }
            return RuleShadow(
                index: position,
                coveredBy: [earlier],
                isDuplicate: other.action == rule.action && other.target == rule.target
                    && cover.ports == compiled.ports && cover.coversTCP == compiled.coversTCP
                    && cover.coversUDP == compiled.coversUDP,
                remainder: mayLeaveDatagrams && !cover.coversUDP ? .datagrams : remainder
            )
        }
        return nil
    }

    /// Those of `earlier` that together take everything from the rule: with its own action if they suffice, so that an
    /// exception in front of them is not blamed. Each matches all that the rule matches, or is a block inside the rule's.
    mutating func behindSeveral(of earlier: [Int]) -> RuleShadow? {
        guard earlier.count > 1, compiled.coversTCP || compiled.coversUDP else { return nil }
        let own = PortSpace(of: compiled)
        var covers: [JointCover.Part] = []
        var remainders: [Int: RuleShadow.Remainder] = [:]
        for earlier in earlier {
            let cover = policy.compiledRule(earlier)
            guard cover.expiry >= compiled.expiry, own.intersects(cover),
                let remainder = remainder(behind: listed[earlier])
            else { continue }
            covers.append(JointCover.Part(position: earlier, rule: listed[earlier], compiled: cover))
            remainders[earlier] = remainder
        }
        let alike = covers.filter { $0.rule.action == rule.action }
        let hasContrary = alike.count < covers.count
        if let found = JointCover.find(alike, of: rule.target, compiled)
            ?? (hasContrary ? JointCover.find(covers, of: rule.target, compiled) : nil)
        {
            // Another rule for exactly this name keeps it out of the budget as well.
            let hasItsLike = found.contains { listed[$0].action == .allow && listed[$0].target == rule.target }
            let remainder = found.lazy.compactMap { remainders[$0] }.first
            return shadow(behind: found, leaving: remainder == .nameBudget && hasItsLike ? nil : remainder)
        }
        guard hasContrary, isThoughtOfAsTCP,
            let found = JointCover.find(covers, of: rule.target, compiled.overTCPAlone),
            found.contains(where: { listed[$0].action == .allow })
        else { return nil }
        return shadow(behind: found, leaving: .datagrams)
    }

    private func shadow(behind covers: [Int], leaving remainder: RuleShadow.Remainder?) -> RuleShadow {
        RuleShadow(index: position, coveredBy: covers, isDuplicate: false, remainder: remainder)
    }

    /// Whether an allowance in front of the rule that speaks of TCP alone leaves it nothing that anybody thought of.
    private var isThoughtOfAsTCP: Bool { rule.action == .deny && rule.transport == nil && !rule.statesAnyTransport }
}

// MARK: - What depends on the rule all the same

extension ShadowSearch {
    /// What depends on the rule where an earlier one matches as well, on the same ports and for as long. The outer `nil`: it
    /// can decide.
    private mutating func remainder(behind other: Rule) -> RuleShadow.Remainder?? {
        guard case .addresses(let block) = rule.target, case .addresses(let around) = other.target else {
            if case .name = rule.target, rule.action == .allow, other.action == .allow, rule.target != other.target {
                return .some(.nameBudget)
            }
            return .some(nil)
        }
        switch (other.action, rule.action) {
        case (.deny, .deny): return .some(nil)
        case (.deny, .allow):
            // While some rule allows addresses, names are taken to have one: see `decideQuery`.
            return policy.denials.chains.isEmpty || hasOtherAllowance ? .some(nil) : nil
        case (.allow, .deny):
            // A broad rule allows, but opens no guard range; the denial inside it keeps later rules from opening one.
            return keepsGuardRangeClosed ? nil : .some(nil)
        case (.allow, .allow):
            guard around.length < block.length else { return .some(nil) }
            // The narrower rule may lie inside a guard range where the broader does not: then it opens it.
            let opens = policy.guards.prefixes(block.family).contains {
                $0.contains(block) && around.length < $0.length
            }
            // The clients in Teredo addresses are no prefix of theirs.
            let isTeredo = block.family == .v6 && block.length > 96 && block.address.value >> 96 == 0x2001_0000
            if opens || isTeredo { return nil }
            return block.length == block.family.bitWidth ? .some(.nodeAddress) : .some(nil)
        }
    }

    /// Whether a later rule allows addresses that this one speaks of.
    private func findKeptGuardRange() -> Bool {
        guard case .addresses(let block) = rule.target else { return false }
        return listed[(position + 1)...].contains { later in
            guard later.action == .allow, case .addresses(let opened) = later.target else { return false }
            return opened.contains(block) || block.contains(opened)
        }
    }

    /// Whether another rule allows addresses for as long as this one.
    private func findOtherAllowance() -> Bool {
        listed.indices.contains { index in
            let other = policy.compiledRule(index)
            guard index != position, other.action == .allow, other.expiry >= compiled.expiry else { return false }
            if case .addresses = listed[index].target { return true }
            return false
        }
    }
}

extension CompiledPolicy {
    /// The rule at `position` among the policy's own and, behind them, those of its set-up phase.
    fileprivate func compiledRule(_ position: Int) -> CompiledRule {
        // Answers for always stand between the two.
        let answers = position < policy.rules.count ? 0 : always.answers.count
        return rules[always.deny.count + always.allow.count + answers + position]
    }
}

extension CompiledRule {
    /// Whether it covers every port and protocol that `other` does. A rule that covers nothing is covered by none: what is
    /// wrong with it is something else.
    fileprivate func coversAll(of other: CompiledRule) -> Bool {
        guard other.coversTCP || other.coversUDP, coversTCP || !other.coversTCP, coversUDP || !other.coversUDP else {
            return false
        }
        if ports.isEmpty || ports == [.all] { return true }
        guard !other.ports.isEmpty else { return false }
        return other.ports.allSatisfy { range in
            ports.contains { $0.lower <= range.lower && range.upper <= $0.upper }
        }
    }

    fileprivate var overTCPAlone: CompiledRule {
        var rule = self
        rule.coversUDP = false
        return rule
    }
}
