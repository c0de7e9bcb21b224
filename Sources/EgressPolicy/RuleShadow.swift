import NetPrimitives

/// A rule of a policy that earlier rules cover wholly: whatever it speaks of, they have decided.
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
    /// The positions of the rules that cover it, in order: the first one that does so alone, or else several together.
    public let coveredBy: [Int]
    /// Whether both say the same, comments and expiry aside.
    public let isDuplicate: Bool
    /// What depends on the rule all the same; `nil` when it could be removed without any difference.
    public let remainder: Remainder?
}

extension CompiledPolicy {
    /// The policy's rules that earlier rules of the policy cover, in order.
    ///
    /// The operator's always-rules are taken as given: they cover nothing here, since another operator has others. Several
    /// rules cover one together where each of its addresses, ports and protocols is covered by one of them; among rules
    /// about names each must match all of the rule's names. A rule can be dead that is not told: see ``JointCover``.
    public func shadows() -> [RuleShadow] {
        var index = CoverIndex()
        var found: [RuleShadow] = []
        let listed = policy.unphased.rules
        for (position, rule) in listed.enumerated() {
            var search = ShadowSearch(for: position, in: listed, of: self)
            let around = index.candidates(for: rule.target).sorted()
            if let shadow = search.behindOne(of: around)
                ?? search.behindSeveral(of: around + index.blocks(inside: rule.target))
            {
                found.append(shadow)
            }
            index.insert(rule.target, position)
        }
        return found
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
