import NetPrimitives

/// Several rules that cover another one together: each of its addresses, ports and protocols is covered by one of them.
///
///     10.0.0.0/24, 80 and 443     is covered by    10.0.0.0/24 80    10.0.0.0/25    10.0.0.128/25 443
///      ├─ 10.0.0.0/25                                  80                443
///      └─ 10.0.0.128/25                                80                               443
///
/// What it finds is so. What it does not find may be so all the same: wildcards that only many others exhaust (`a*.example`,
/// `b*.example`, … for `*.example`) are taken to be left open, and so is a block into which more than ``mostBlocks`` rules cut.
enum JointCover {
    /// Of more rules about smaller blocks inside a rule's nothing is said: time grows with them. So many are a `/24` host by
    /// host.
    static let mostBlocks = 256

    /// A rule that may cover a part of another.
    struct Part {
        let position: Int
        let rule: Rule
        let compiled: CompiledRule

        fileprivate var block: IPPrefix? {
            if case .addresses(let block) = rule.target { block } else { nil }
        }

        /// How many ports it covers, counted for each protocol.
        fileprivate var breadth: Int {
            let ports = compiled.ports.isEmpty ? [PortRange.all] : compiled.ports
            let count = ports.reduce(0) { $0 + Int($1.upper) - Int($1.lower) + 1 }
            return count * (compiled.coversTCP && compiled.coversUDP ? 2 : 1)
        }
    }

    /// The positions of `parts` that together cover all of `target` that `rule` speaks of, in order; `nil` when they do not.
    /// Rules about more addresses and ports are preferred, and what is not needed beside them is left out.
    ///
    /// The target of a part matches all that `target` does, or is a block inside it.
    static func find(_ parts: [Part], of target: Target, _ rule: CompiledRule) -> [Int]? {
        var search = Search()
        let isCovered: Bool
        if case .addresses(let block) = target {
            let inside = parts.filter { $0.block!.length > block.length }
            isCovered = search.covers(
                block,
                with: parts.filter { $0.block!.length <= block.length },
                and: inside,
                PortSpace(of: rule)
            )
        } else {
            var left = PortSpace(of: rule)
            isCovered = search.takes(&left, with: parts)
        }
        return isCovered ? search.found.sorted() : nil
    }

    private struct Search {
        private(set) var found: Set<Int> = []

        /// Takes away from `left` what `parts` cover; whether nothing is left.
        mutating func takes(_ left: inout PortSpace, with parts: [Part]) -> Bool {
            let ranked = parts.map { (part: $0, breadth: $0.breadth) }
                .sorted { ($1.breadth, $0.part.position) < ($0.breadth, $1.part.position) }
            for (part, _) in ranked where left.intersects(part.compiled) {
                left.subtract(part.compiled)
                found.insert(part.position)
                if left.isEmpty { return true }
            }
            return left.isEmpty
        }

        /// Whether what is `left` of `block` is covered by `here`, the rules about all of it, and by `inside` in each half.
        /// It ends at the first place that is open, and so goes no deeper than blocks fill both halves.
        mutating func covers(_ block: IPPrefix, with here: [Part], and inside: [Part], _ left: PortSpace) -> Bool {
            var left = left
            if takes(&left, with: here) { return true }
            guard inside.count > 1, let halves = block.halves else { return false }
            let parts = halves.map { half in inside.filter { half.contains($0.block!) } }
            guard !parts.contains(where: \.isEmpty) else { return false }
            return zip(halves, parts).allSatisfy { half, parts in
                covers(half, with: parts.filter { $0.block == half }, and: parts.filter { $0.block != half }, left)
            }
        }
    }
}

extension IPPrefix {
    /// The two blocks that it consists of; `nil` for a single address.
    fileprivate var halves: [IPPrefix]? {
        guard length < family.bitWidth else { return nil }
        let middle = first.value | 1 << UInt128(family.bitWidth - length - 1)
        return [first.value, middle].compactMap { IPAddress(family: family, value: $0) }
            .map { IPPrefix($0, length: length + 1) }
    }
}
