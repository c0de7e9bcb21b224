import NetPrimitives

/// Values under address blocks, found by an address: one hash look-up for each prefix length that occurs (at most 33 and
/// 129), however many blocks there are.
struct PrefixMap<Value: Sendable>: Sendable {
    private struct Level: Sendable {
        let length: Int
        let mask: UInt128
        var values: [UInt128: Value]
    }

    private var levels4: [Level] = []
    private var levels6: [Level] = []

    init() {}

    /// The value under exactly `prefix`; made by `initial` when there is none.
    subscript(prefix: IPPrefix, default initial: @autoclosure () -> Value) -> Value {
        get { self[prefix] ?? initial() }
        set { self[prefix] = newValue }
        _modify {
            let (isV4, index) = level(of: prefix)
            if isV4 {
                yield &levels4[index].values[prefix.address.value, default: initial()]
            } else {
                yield &levels6[index].values[prefix.address.value, default: initial()]
            }
        }
    }

    private subscript(prefix: IPPrefix) -> Value? {
        get {
            let levels = prefix.family == .v4 ? levels4 : levels6
            return levels.first { $0.length == prefix.length }?.values[prefix.address.value]
        }
        set {
            let (isV4, index) = level(of: prefix)
            if isV4 {
                levels4[index].values[prefix.address.value] = newValue
            } else {
                levels6[index].values[prefix.address.value] = newValue
            }
        }
    }

    /// Calls `body` with every value whose block holds `address`, shortest prefix first, and the prefix length.
    @inline(__always) func forEach(containing address: IPAddress, _ body: (Int, Value) -> Void) {
        for level in address.family == .v4 ? levels4 : levels6 {
            if let value = level.values[address.value & level.mask] { body(level.length, value) }
        }
    }

    /// All blocks of a family with their values, in no order.
    func blocks(_ family: IPAddress.Family) -> [(prefix: IPPrefix, value: Value)] {
        (family == .v4 ? levels4 : levels6).flatMap { level in
            level.values.map { (IPPrefix(IPAddress(family: family, value: $0.key)!, length: level.length), $0.value) }
        }
    }

    /// All blocks of a family with their values, so that a block stands right before those inside it.
    func sorted(_ family: IPAddress.Family) -> [(prefix: IPPrefix, value: Value)] {
        let blocks = blocks(family)
        return blocks.map(\.prefix).nestingOrder().map { blocks[$0] }
    }

    /// Changes every value.
    mutating func updateValues(_ change: (inout Value) -> Void) {
        for index in levels4.indices { Self.updateValues(&levels4[index].values, change) }
        for index in levels6.indices { Self.updateValues(&levels6[index].values, change) }
    }

    private static func updateValues(_ values: inout [UInt128: Value], _ change: (inout Value) -> Void) {
        var index = values.startIndex
        while index != values.endIndex {
            change(&values.values[index])
            values.formIndex(after: &index)
        }
    }

    private mutating func level(of prefix: IPPrefix) -> (isV4: Bool, index: Int) {
        let isV4 = prefix.family == .v4
        let levels = isV4 ? levels4 : levels6
        let index = levels.firstIndex { $0.length >= prefix.length } ?? levels.count
        if index == levels.count || levels[index].length != prefix.length {
            let ones = IPPrefix(
                IPAddress(family: prefix.family, value: isV4 ? 0xffff_ffff : .max)!,
                length: prefix.length
            )
            let level = Level(length: prefix.length, mask: ones.address.value, values: [:])
            if isV4 { levels4.insert(level, at: index) } else { levels6.insert(level, at: index) }
        }
        return (isV4, index)
    }
}

extension [IPPrefix] {
    /// The order in which a block stands right before those inside it, for blocks of one family; equal ones stay as they
    /// are. Numbers are sorted, so that what belongs to the blocks is moved once.
    func nestingOrder() -> [Int] {
        var places = enumerated().map { Place(address: $1.address.value, length: $1.length, index: $0) }
        places.sort { ($0.address, $0.length, $0.index) < ($1.address, $1.length, $1.index) }
        return places.map(\.index)
    }
}

private struct Place {
    let address: UInt128
    let length: Int
    let index: Int
}
