import NetPrimitives

/// A rule of a policy that an earlier rule covers wholly: whatever it speaks of, the earlier one has decided.
///
/// Told only of rules whose removal changes the action of no verdict, whatever the time and the node's addresses. What is
/// not that, because something small depends on the rule all the same, says so in ``remainder``.
public struct RuleShadow: Hashable, Sendable {
    /// What still depends on a rule that decides nothing else.
    public enum Remainder: Hashable, Sendable {
        /// A rule for exactly this name keeps it out of the budget of names below the earlier rule's wildcard.
        case nameBudget
        /// A rule for exactly this address opens it should it be the node's own, which the earlier one does not.
        case nodeAddress
        /// A denial that names no protocol refuses datagrams too, of which the earlier allowance does not speak.
        case datagrams
    }

    /// The position of the covered rule in the policy's list, behind which that of its set-up phase goes on.
    public let index: Int
    /// The position of the rule that covers it; always the first one that does.
    public let coveredBy: Int
    /// Whether both say the same, comments and expiry aside.
    public let isDuplicate: Bool
    /// What depends on the rule all the same; `nil` when it could be removed without any difference.
    public let remainder: Remainder?
}

extension CompiledPolicy {
    /// The policy's rules that an earlier rule of the policy covers, in order.
    ///
    /// The operator's always-rules are taken as given: they cover nothing here, since another operator has others. One
    /// earlier rule must do the covering, not several together: so a rule can be dead that is not told.
    public func shadows() -> [RuleShadow] {
        var index = CoverIndex()
        var found: [RuleShadow] = []
        let listed = policy.unphased.rules
        for (position, rule) in listed.enumerated() {
            let compiled = compiledRule(at: position)
            for earlier in index.candidates(for: rule.target).sorted() {
                let (other, cover) = (listed[earlier], compiledRule(at: earlier))
                guard cover.expiry >= compiled.expiry else { continue }
                let speaksOfDatagramsToo =
                    rule.action == .deny && other.action == .allow && rule.transport == nil && !rule.statesAnyTransport
                guard cover.coversAll(of: speaksOfDatagramsToo ? compiled.overTCPAlone : compiled) else { continue }
                guard var remainder = remainder(of: position, behind: earlier, in: listed) else { continue }
                if speaksOfDatagramsToo, !cover.coversUDP { remainder = .datagrams }
                found.append(
                    RuleShadow(
                        index: position,
                        coveredBy: earlier,
                        isDuplicate: other.action == rule.action && other.target == rule.target
                            && cover.ports == compiled.ports && cover.coversTCP == compiled.coversTCP
                            && cover.coversUDP == compiled.coversUDP,
                        remainder: remainder
                    )
                )
                break
            }
            index.insert(rule.target, position)
        }
        return found
    }

    /// A rule of the policy or, counted on, of its set-up phase.
    private func compiledRule(at position: Int) -> CompiledRule {
        let offset = always.deny.count + always.allow.count
        return rules[offset + position + (position < policy.rules.count ? 0 : always.answers.count)]
    }

    /// What depends on a rule that an earlier one covers in targets, ports and time. The outer `nil`: it can decide.
    private func remainder(of position: Int, behind earlier: Int, in listed: [Rule]) -> RuleShadow.Remainder?? {
        let (rule, other) = (listed[position], listed[earlier])
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
            let expiry = compiledRule(at: position).expiry
            let isTaken = denials.chains.isEmpty || allowsAddresses(until: expiry, besides: position, in: listed)
            return isTaken ? .some(nil) : nil
        case (.allow, .deny):
            // A broad rule allows, but opens no guard range; the denial inside it keeps later rules from opening one.
            let closes = listed[(position + 1)...].contains { later in
                guard later.action == .allow, case .addresses(let opened) = later.target else { return false }
                return opened.contains(block) || block.contains(opened)
            }
            return closes ? nil : .some(nil)
        case (.allow, .allow):
            guard around.length < block.length else { return .some(nil) }
            // The narrower rule may lie inside a guard range where the broader does not: then it opens it.
            let opens = guards.prefixes(block.family).contains { $0.contains(block) && around.length < $0.length }
            // The clients in Teredo addresses are no prefix of theirs.
            let isTeredo = block.family == .v6 && block.length > 96 && block.address.value >> 96 == 0x2001_0000
            if opens || isTeredo { return nil }
            return block.length == block.family.bitWidth ? .some(.nodeAddress) : .some(nil)
        }
    }

    private func allowsAddresses(until expiry: Int64, besides position: Int, in listed: [Rule]) -> Bool {
        listed.indices.contains { index in
            let other = compiledRule(at: index)
            guard index != position, other.action == .allow, other.expiry >= expiry else { return false }
            if case .addresses = listed[index].target { return true }
            return false
        }
    }
}

extension CompiledRule {
    /// Whether it covers every port and protocol that `other` does. A rule that covers nothing is covered by none: what is
    /// wrong with it is something else.
    fileprivate func coversAll(of other: CompiledRule) -> Bool {
        guard other.coversTCP || other.coversUDP, coversTCP || !other.coversTCP, coversUDP || !other.coversUDP else {
            return false
        }
        if ports.isEmpty { return true }
        guard !other.ports.isEmpty else { return false }
        return other.ports.allSatisfy { range in
            ports.contains { $0.lower <= range.lower && range.upper <= $0.upper }
        }
    }
}

extension CompiledRule {
    fileprivate var overTCPAlone: CompiledRule {
        var rule = self
        rule.coversUDP = false
        return rule
    }
}

extension Target {
    /// Whether it matches whatever `other` matches. Names and addresses never cover each other: a connection has both.
    public func covers(_ other: Target) -> Bool {
        switch (self, other) {
        case (.name(let name), .name(let otherName)): return name == otherName
        case (.subdomains(let parent), .name(let name)): return name.isBelow(parent)
        case (.subdomains(let parent), .subdomains(let otherParent)),
            (.subdomains(let parent), .label(_, _, let otherParent)):
            return parent == otherParent || otherParent.isBelow(parent)
        case (.label(let prefix, let suffix, let parent), .name(let name)):
            guard name.parent == parent, let label = name.labels.first else { return false }
            return label.count >= prefix.count + suffix.count && label.starts(with: prefix)
                && label.suffix(suffix.count).elementsEqual(suffix)
        case (.label(let prefix, let suffix, let parent), .label(let otherPrefix, let otherSuffix, let otherParent)):
            return parent == otherParent && otherPrefix.starts(with: prefix)
                && otherSuffix.suffix(suffix.count).elementsEqual(suffix)
        case (.addresses(let block), .addresses(let otherBlock)): return block.contains(otherBlock)
        default: return false
        }
    }
}

/// The rules entered so far, found by what they may cover: so that many rules are not each compared with each.
private struct CoverIndex {
    private var byTarget: [Target: [Int]] = [:]
    private var patterns: [DomainName: [(target: Target, position: Int)]] = [:]

    mutating func insert(_ target: Target, _ position: Int) {
        if case .label(_, _, let parent) = target {
            patterns[parent, default: []].append((target, position))
        } else {
            byTarget[target, default: []].append(position)
        }
    }

    /// The positions of the rules whose targets cover `target`.
    func candidates(for target: Target) -> [Int] {
        var found: [Int] = []
        switch target {
        case .name(let name):
            found += byTarget[target] ?? []
            found += below(name.parent)
            if let parent = name.parent { found += patterns(of: parent, covering: target) }
        case .subdomains(let parent): found += below(parent)
        case .label(_, _, let parent): found += below(parent) + patterns(of: parent, covering: target)
        case .addresses(let block):
            for length in 0...block.length {
                found += byTarget[.addresses(IPPrefix(block.address, length: length))] ?? []
            }
        }
        return found
    }

    private func below(_ name: DomainName?) -> [Int] {
        var (found, name): ([Int], DomainName?) = ([], name)
        while let parent = name {
            found += byTarget[.subdomains(of: parent)] ?? []
            name = parent.parent
        }
        return found
    }

    private func patterns(of parent: DomainName, covering target: Target) -> [Int] {
        (patterns[parent] ?? []).filter { $0.target.covers(target) }.map(\.position)
    }
}
