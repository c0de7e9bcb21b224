import NetPrimitives

/// The rules entered so far, found by what they may cover: so that many rules are not each compared with each.
struct CoverIndex {
    private var byTarget: [Target: [Int]] = [:]
    private var patterns: [DomainName: [(target: Target, position: Int)]] = [:]
    private var blocks = SortedBlocks()

    mutating func insert(_ target: Target, _ position: Int) {
        if case .label(_, _, let parent) = target {
            patterns[parent, default: []].append((target, position))
        } else {
            byTarget[target, default: []].append(position)
        }
        if case .addresses(let block) = target { blocks.insert(block, position) }
    }

    /// The positions of the rules about blocks that are smaller than that of `target` and lie inside it, each behind those
    /// around it; none where they are more than a joint cover is sought among.
    func blocks(inside target: Target) -> [Int] {
        guard case .addresses(let block) = target else { return [] }
        let inside = blocks.strictlyInside(block)
        return inside.count > JointCover.mostBlocks ? [] : inside.map(\.position)
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

/// Blocks in nesting order: by first address, and a block before those inside it.
private struct SortedBlocks {
    private typealias Key = (family: IPAddress.Family, first: UInt128, length: Int)

    private var entries: [(block: IPPrefix, position: Int)] = []

    mutating func insert(_ block: IPPrefix, _ position: Int) {
        entries.insert((block, position), at: index(ofFirstNotBefore: Self.key(block, block.length + 1)))
    }

    func strictlyInside(_ block: IPPrefix) -> ArraySlice<(block: IPPrefix, position: Int)> {
        let start = index(ofFirstNotBefore: Self.key(block, block.length + 1))
        let end = entries[start...].partitioningIndex { !block.contains($0.block) }
        return entries[start..<end]
    }

    private static func key(_ block: IPPrefix, _ length: Int) -> Key { (block.family, block.first.value, length) }

    private func index(ofFirstNotBefore key: Key) -> Int {
        entries.partitioningIndex { entry in
            let other = Self.key(entry.block, entry.block.length)
            guard other.family == key.family else { return key.family == .v4 }
            return (other.first, other.length) >= (key.first, key.length)
        }
    }
}

extension RandomAccessCollection {
    /// Where the elements begin for which `isBehind` holds, of which there are none before the others.
    fileprivate func partitioningIndex(_ isBehind: (Element) -> Bool) -> Index {
        var (low, count) = (startIndex, count)
        while count > 0 {
            let half = count / 2
            let middle = index(low, offsetBy: half)
            if isBehind(self[middle]) {
                count = half
            } else {
                low = index(after: middle)
                count -= half + 1
            }
        }
        return low
    }
}
