public import NetPrimitives

extension CompiledPolicy {
    /// Past this many rules looked at, the rest of the space counts as possible wherever a rule or the default allows
    /// anything: a set too wide is judged again by `decide`, one that is never ready stops a policy.
    private static let workLimit = 50_000_000
    /// With more IPv4 intervals than this, IPv6 addresses that hold an IPv4 address are cut by guard ranges alone.
    private static let translationLimit = 1_024

    /// The addresses to which some connection without a name could be allowed: what the kernel lets through to be looked
    /// at beside the pinned addresses. Sorted, disjoint, IPv4 first. In report mode everything outside guard ranges.
    ///
    /// Never narrower than ``decide(_:at:)``. Exact for IPv4. For IPv6 too wide only where an address holds an IPv4
    /// address that is allowed on no port the IPv6 address is allowed on, at a place that is no interval (ISATAP,
    /// Teredo clients, 64:ff9b:1::/48 beyond its first /96), or past the limits above.
    public func possibleAddresses(at time: WallTime) -> [ClosedRange<IPAddress>] {
        possibleAddresses(over: nil, at: time)
    }

    /// ``possibleAddresses(at:)`` for connections of one transport only.
    func possibleAddresses(over transport: TransportProtocol?, at time: WallTime) -> [ClosedRange<IPAddress>] {
        let time = time.microseconds
        var work = 0
        let v4 = possible(.v4, over: transport, at: time, work: &work)
        let v6 = possible(.v6, over: transport, at: time, work: &work)
        let translatable =
            v4.ranges.count <= Self.translationLimit ? v4 : unguarded(.v4, over: transport, at: time)
        let judged6 = v6.ranges.isEmpty ? v6 : v6.intersection(Self.translated(translatable))
        return v4.ranges.map {
            IPAddress(family: .v4, value: $0.lowerBound)!...IPAddress(family: .v4, value: $0.upperBound)!
        }
            + judged6.ranges.map { IPAddress(v6: $0.lowerBound)...IPAddress(v6: $0.upperBound) }
    }

    private struct Block {
        let prefix: IPPrefix
        /// The rules of the block; `nil` for a guard range.
        let rules: BlockRules?
    }

    private func blocks(_ family: IPAddress.Family) -> [Block] {
        var blocks = guards.prefixes(family).map { Block(prefix: $0, rules: nil) }
        blocks += addresses.blocks(family).map { Block(prefix: $0.prefix, rules: $0.value) }
        return blocks.map(\.prefix).nestingOrder().map { blocks[$0] }
    }

    private func possible(
        _ family: IPAddress.Family,
        over transport: TransportProtocol?,
        at time: Int64,
        work: inout Int
    ) -> AddressIntervals {
        let blocks = blocks(family)
        var intervals = AddressIntervals()
        var spent = work
        AddressRegions.forEach(family, blocks: blocks.map(\.prefix)) { region, stack in
            if isPossible(stack.map { blocks[$0] }, over: transport, at: time, work: &spent) {
                intervals.append(region)
            }
        }
        work = spent
        return intervals
    }

    /// What no guard range holds, or a rule opens.
    private func unguarded(
        _ family: IPAddress.Family,
        over transport: TransportProtocol?,
        at time: Int64
    ) -> AddressIntervals {
        let blocks = blocks(family)
        var intervals = AddressIntervals()
        AddressRegions.forEach(family, blocks: blocks.map(\.prefix)) { region, stack in
            let around = stack.map { blocks[$0] }
            let required = Self.requiredLength(around)
            if required == 0 || opens(Self.positions(around, required), over: transport, at: time) {
                intervals.append(region)
            }
        }
        return intervals
    }

    private func isPossible(
        _ around: [Block],
        over transport: TransportProtocol?,
        at time: Int64,
        work: inout Int
    ) -> Bool {
        let required = Self.requiredLength(around)
        if required == 0 && policy.mode == .report { return true }
        work += around.reduce(1) { $0 + ($1.rules?.all.positions.count ?? 0) }
        guard work < Self.workLimit else { return required == 0 || around.contains { $0.rules != nil } }
        let positions = Self.positions(around, required)
        return required == 0
            ? couldAllow(positions, over: transport, at: time) : opens(positions, over: transport, at: time)
    }

    private static func requiredLength(_ around: [Block]) -> Int {
        around.last { $0.rules == nil }?.prefix.length ?? 0
    }

    private static func positions(_ around: [Block], _ required: Int) -> [Int32] {
        around.flatMap { $0.rules?.bearingOnGuard($0.prefix.length >= required).positions ?? [] }.sorted()
    }

    /// All IPv6 addresses except those that hold an IPv4 address outside of `v4`.
    private static func translated(_ v4: AddressIntervals) -> AddressIntervals {
        var intervals = AddressIntervals()
        let forms = GuardRanges.translations.sorted { $0.first.value < $1.first.value }
        AddressRegions.forEach(.v6, blocks: forms) { region, stack in
            guard let index = stack.last else { return intervals.append(region) }
            let form = forms[index]
            let shift = UInt128(96 - form.length)
            for range in v4.ranges {
                let high = form.address.value | range.upperBound << shift | ((1 << shift) - 1)
                intervals.append((form.address.value | range.lowerBound << shift)...high)
            }
        }
        return intervals
    }
}
