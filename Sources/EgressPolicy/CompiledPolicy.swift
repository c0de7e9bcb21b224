public import NetPrimitives

/// A policy made ready for decisions: what a decision costs does not depend on how many rules there are.
///
///     flow ──▶ guard ranges ──▶ rules that match the name    ─┐
///              deny unless      (hash by every name above)    ├─▶ the lowest position ──▶ verdict
///              a rule opens     rules that match the address ─┘   none: defaultAction
///              the range        (hash by every prefix length)
///
/// There is one order over all rules: `deny.always`, `allow.always`, the policy's, what answers have allowed for always,
/// those of the policy's set-up phase, then what was allowed once. Rules with one target stand in one bucket; a decision takes the lowest live position over the buckets that
/// match. See `RuleBucket`, `NameIndex` and `PrefixMap` for why each step is bounded.
///
/// Immutable, so it can be shared between threads.
public final class CompiledPolicy: Sendable {
    /// What was compiled.
    public let policy: Policy
    /// The operator's rules around it.
    public let always: AlwaysRules
    /// What was allowed once: rules behind all others, which the policy knows nothing of.
    public let once: [Rule]
    /// Counts the policies of a sandbox; records carry it.
    public let generation: UInt64
    /// The ranges that only an explicit rule about addresses opens.
    public let guards: GuardRanges

    let rules: [CompiledRule]
    let names: NameIndex
    let addresses: PrefixMap<BlockRules>
    let denials: DenialCover
    /// The latest expiry of an allow rule about addresses; `.min` when there is none.
    let allowsAddressesUntil: Int64
    private let expiries: [Int64]

    /// Compiles `policy` with the operator's rules around it. `nodeAddresses` are addresses of the machine itself,
    /// which are guarded like loopback.
    public convenience init(
        _ policy: Policy,
        always: AlwaysRules = .init(),
        nodeAddresses: [IPAddress] = [],
        generation: UInt64 = 1
    ) {
        let guards = GuardRanges(nodeAddresses: nodeAddresses)
        self.init(policy, always: always, guards: guards, generation: generation)
    }

    /// Compiles `policy` with the operator's rules around it, within the ranges that another policy is guarded by.
    public init(
        _ policy: Policy,
        always: AlwaysRules,
        guards: GuardRanges,
        generation: UInt64 = 1,
        once: [Rule] = []
    ) {
        self.policy = policy
        self.always = always
        self.once = once
        self.generation = generation
        self.guards = guards
        let groups: [(rules: [Rule], action: RuleAction?)] = [
            (always.deny, .deny), (always.allow, .allow), (policy.rules, nil), (always.answers, .allow),
            (policy.setup?.boundedRules ?? [], .allow), (once, .allow),
        ]
        let count = groups.reduce(0) { $0 + $1.rules.count }
        var rules: [CompiledRule] = []
        rules.reserveCapacity(count)
        var names = NameIndex(capacity: groups.reduce(0) { $0 + $1.rules.count { !$0.target.isOfAddresses } })
        var addresses = PrefixMap<BlockRules>()
        var allowsAddressesUntil = Int64.min
        for (group, action) in groups {
            for rule in group {
                let position = Int32(rules.count)
                let compiled = CompiledRule(rule, action: action ?? rule.action)
                rules.append(compiled)
                guard case .addresses(let prefix) = rule.target else {
                    names.insert(rule.target, position, compiled)
                    continue
                }
                addresses[prefix, default: BlockRules()].append(position, compiled.action)
                if compiled.action == .allow { allowsAddressesUntil = max(allowsAddressesUntil, compiled.expiry) }
            }
        }
        names.freeze(rules)
        addresses.updateValues { $0.freeze(rules) }
        self.rules = rules
        self.names = names
        self.addresses = addresses
        self.allowsAddressesUntil = allowsAddressesUntil
        self.denials = DenialCover(addresses, guards: guards)
        self.expiries = Set(rules.map(\.expiry)).subtracting([.max]).sorted()
    }

    /// The same, but for what is allowed once.
    public func allowing(once rules: [Rule]) -> CompiledPolicy {
        guard rules != once else { return self }
        return CompiledPolicy(policy, always: always, guards: guards, generation: generation, once: rules)
    }

    /// The first moment after `time` at which a rule expires; `nil` when none will.
    public func nextExpiry(after time: WallTime) -> WallTime? {
        var (low, high) = (0, expiries.count)
        while low < high {
            let middle = (low + high) / 2
            if expiries[middle] <= time.microseconds { low = middle + 1 } else { high = middle }
        }
        return low < expiries.count ? WallTime(microseconds: expiries[low]) : nil
    }
}

// MARK: - Deciding

extension CompiledPolicy {
    /// Judges a flow by all that is known of it. In report mode a denial, except of a guard range, becomes an allowance
    /// that carries the denial's reason and rule.
    public func decide(_ flow: Flow, at time: WallTime) -> Verdict {
        var work = 0
        return decide(flow, at: time, work: &work)
    }

    /// ``decide(_:at:)``, counting the rules and index entries it looks at.
    func decide(_ flow: Flow, at time: WallTime, work: inout Int) -> Verdict {
        var verdict = enforce(flow, at: time.microseconds, work: &work)
        if policy.mode == .report && verdict.action == .deny && verdict.reason != .guardRange {
            verdict.action = .allow
            verdict.isReportOnly = true
        }
        return verdict
    }

    private func enforce(_ flow: Flow, at time: Int64, work: inout Int) -> Verdict {
        guard let address = flow.address else { return match(flow, at: time, work: &work) }
        let inner = address.embeddedIPv4
        // Guards first and for all addresses: what they deny, report mode denies too.
        for subject in [address] + inner where !isOpen(subject, for: flow, at: time, work: &work) {
            return Verdict(.deny, .guardRange)
        }
        var verdict = match(flow, at: time, work: &work)
        for subject in inner where verdict.action == .allow {
            let innerFlow = Flow(name: flow.name, address: subject, port: flow.port, transport: flow.transport)
            let innerVerdict = match(innerFlow, at: time, work: &work)
            // All must allow; and where one is allowed by the name, the flow has to show that it goes by that name.
            if innerVerdict.action == .deny || innerVerdict.basis == .name { verdict = innerVerdict }
        }
        return verdict
    }

    /// The first live rule that matches, or the default.
    private func match(_ flow: Flow, at time: Int64, work: inout Int) -> Verdict {
        var match = Match()
        if let name = flow.name {
            names.forEach(matching: name, work: &work) { bucket, _ in bucket.find(flow, at: time, rules, &match) }
        }
        if let address = flow.address {
            addresses.forEach(containing: address) { _, block in block.all.find(flow, at: time, rules, &match) }
        }
        work += match.work
        if match.live != .max {
            return verdict(of: match.live)
        }
        if policy.defaultAction == .allow && flow.transport == .tcp {
            return Verdict(.allow, .default)
        }
        return defaultDenial(expired: match.expired)
    }

    /// Whether `address` is in no guard range, or the flow is one that a rule inside the range allows.
    private func isOpen(_ address: IPAddress, for flow: Flow, at time: Int64, work: inout Int) -> Bool {
        let required = guards.requiredLength(for: address)
        guard required > 0 else { return true }
        // The first rule that opens must stand before the first that denies.
        var opener = Match()
        var denial = Match()
        addresses.forEach(containing: address) { length, block in
            var found = Match()
            block.bearingOnGuard(length >= required).find(flow, at: time, rules, &found)
            work += found.work
            guard found.live != .max else { return }
            if rules[Int(found.live)].action == .deny {
                denial.live = min(denial.live, found.live)
            } else {
                opener.live = min(opener.live, found.live)
            }
        }
        return opener.live < denial.live
    }

    func verdict(of position: Int32) -> Verdict {
        let reference = reference(to: position)
        let basis: Verdict.Basis = if case .addresses = reference.target { .address } else { .name }
        return Verdict(reference.action, .rule, rule: reference, basis: basis)
    }

    func defaultDenial(expired: Int32) -> Verdict {
        // What was allowed once is no rule that anybody could renew.
        guard expired != .max, rules[Int(expired)].action == .allow, Int(expired) < rules.count - once.count else {
            return Verdict(.deny, .default)
        }
        return Verdict(.deny, .expiredRule, rule: reference(to: expired))
    }

    func reference(to position: Int32) -> RuleReference {
        var index = Int(position)
        let action = rules[index].action
        if index < always.deny.count {
            return RuleReference(source: .denyAlways, index: index, action: action, target: always.deny[index].target)
        }
        index -= always.deny.count
        if index < always.allow.count {
            return RuleReference(source: .allowAlways, index: index, action: action, target: always.allow[index].target)
        }
        index -= always.allow.count
        if index < policy.rules.count {
            return RuleReference(source: .policy, index: index, action: action, target: policy.rules[index].target)
        }
        index -= policy.rules.count
        if index < always.answers.count {
            return RuleReference(source: .answers, index: index, action: action, target: always.answers[index].target)
        }
        index -= always.answers.count
        if let setup = policy.setup {
            if index < setup.rules.count {
                return RuleReference(source: .setup, index: index, action: action, target: setup.rules[index].target)
            }
            index -= setup.rules.count
        }
        return RuleReference(source: .once, index: index, action: action, target: once[index].target)
    }
}
