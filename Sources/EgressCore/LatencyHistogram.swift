/// How long something took, counted in buckets: of a fixed size, so that counting neither allocates nor slows down
/// however much is counted. Whoever confines it to a thread needs no lock.
public struct LatencyHistogram: Sendable {
    /// The upper bounds of the buckets, in nanoseconds, inclusive: 50 µs to 10 s, two or three to each power of ten. An
    /// answer from the cache takes about the first, a connection across an ocean is in the middle, and what takes more
    /// than the last has met a deadline.
    public static let bounds: InlineArray<17, UInt64> = [
        50_000, 100_000, 250_000, 500_000,
        1_000_000, 2_500_000, 5_000_000, 10_000_000, 25_000_000, 50_000_000, 100_000_000, 250_000_000, 500_000_000,
        1_000_000_000, 2_500_000_000, 5_000_000_000, 10_000_000_000,
    ]

    /// How many took no longer than the bound at the same place, and longer than the one before it.
    public private(set) var counts = InlineArray<17, UInt64>(repeating: 0)
    /// How many took longer than the last bound.
    public private(set) var beyond: UInt64 = 0
    /// How long all of them took together, in nanoseconds.
    public private(set) var sum: UInt64 = 0

    /// An empty one.
    public init() {}

    /// How many there were.
    public var total: UInt64 {
        var total = beyond
        for index in counts.indices { total &+= counts[index] }
        return total
    }

    /// Counts one that took so long.
    public mutating func count(nanoseconds: UInt64) {
        sum &+= nanoseconds
        // From the shortest on: most are short.
        for index in Self.bounds.indices where nanoseconds <= Self.bounds[index] {
            counts[index] &+= 1
            return
        }
        beyond &+= 1
    }

    /// Adds what another one counted.
    public mutating func add(_ other: LatencyHistogram) {
        for index in counts.indices { counts[index] &+= other.counts[index] }
        beyond &+= other.beyond
        sum &+= other.sum
    }
}
