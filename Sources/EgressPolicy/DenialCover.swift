import NetPrimitives

/// Which rules deny addresses wherever one goes: `deny 0.0.0.0/0` with `deny ::/0` before a name leaves no address
/// that the name could be allowed for, so asking for it is pointless and denied.
///
/// Blocks nest, so the rules at an address are those of the blocks around it. Of all regions that lie in no guard range
/// only those with the fewest blocks around them matter: whatever is denied there is denied further in as well. Most
/// policies leave a region without any, and nothing is kept.
struct DenialCover: Sendable {
    /// More regions than this are not told apart: every name is taken to have an address left.
    private static let limit = 256

    /// For each outermost region the positions of the deny rules there, in order; empty when a region has none.
    let chains: [[Int32]]

    init(_ addresses: PrefixMap<BlockRules>, guards: GuardRanges) {
        var chains: [[Int32]] = []
        for family in [IPAddress.Family.v4, .v6] {
            guard let found = Self.outermost(family, addresses, guards) else {
                self.chains = []
                return
            }
            chains += found
        }
        self.chains = chains.count > Self.limit ? [] : chains.sorted { $0[0] < $1[0] }
    }

    /// `nil` when a region has no deny rule.
    private static func outermost(
        _ family: IPAddress.Family,
        _ addresses: PrefixMap<BlockRules>,
        _ guards: GuardRanges
    ) -> [[Int32]]? {
        var blocks: [(prefix: IPPrefix, denials: [Int32])] = guards.prefixes(family).map { ($0, []) }
        for (prefix, block) in addresses.blocks(family) where !block.denials.positions.isEmpty {
            blocks.append((prefix, block.denials.positions))
        }
        blocks = blocks.map(\.prefix).nestingOrder().map { blocks[$0] }
        var hasOwnRegion = Array(repeating: false, count: blocks.count)
        var around: [Int: [Int]] = [:]
        var isOpen = false
        AddressRegions.forEach(family, blocks: blocks.map(\.prefix)) { _, stack in
            if stack.isEmpty { isOpen = true }
            guard let top = stack.last, !stack.contains(where: { blocks[$0].denials.isEmpty }) else { return }
            hasOwnRegion[top] = true
            around[top] = stack
        }
        if isOpen { return nil }
        return around.values.filter { stack in !stack.dropLast().contains { hasOwnRegion[$0] } }
            .map { stack in stack.flatMap { blocks[$0].denials }.sorted() }
    }
}
