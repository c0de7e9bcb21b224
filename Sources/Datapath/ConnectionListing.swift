import NetPrimitives

/// Live connections that come first, and all there are besides, counted.
public struct ConnectionListing: Sendable {
    /// Which connections come first.
    public enum Order: String, Hashable, Sendable, CaseIterable {
        /// Those that have passed on most bytes; where that is the same, the newest.
        case bytes
        /// Those that began last.
        case newest
        /// Those that began first.
        case oldest

        /// The place of a connection that began at `start`, on whatever clock: those with a greater one come first. Of those
        /// that began in one turn of the loop, the `number` tells which was first.
        func rank(bytes: UInt64, start: Int64, number: UInt32) -> Rank {
            switch self {
            case .bytes: (bytes, start, Int64(number))
            case .newest: (0, start, Int64(number))
            case .oldest: (0, -start, -Int64(number))
            }
        }
    }

    typealias Rank = (UInt64, Int64, Int64)

    /// Those that come first.
    public internal(set) var connections: [LiveConnection] = []
    /// How many there are.
    public internal(set) var total = 0
    /// Bytes from the sandboxes that were passed on since this process took them up, by what has ended as well.
    public private(set) var bytesUp: UInt64 = 0
    /// Bytes to the sandboxes, in the same way.
    public private(set) var bytesDown: UInt64 = 0

    /// Nothing.
    public init() {}

    mutating func add(_ bytes: (up: UInt64, down: UInt64)) {
        bytesUp &+= bytes.up
        bytesDown &+= bytes.down
    }

    /// Adds what was found elsewhere, and keeps the `limit` connections that come first.
    public mutating func add(_ other: ConnectionListing, order: Order, limit: Int) {
        func rank(_ connection: LiveConnection) -> Rank {
            order.rank(
                bytes: connection.bytesUp &+ connection.bytesDown,
                start: connection.since.microseconds,
                number: connection.number
            )
        }
        connections = Array((connections + other.connections).sorted { rank($0) > rank($1) }.prefix(limit))
        total += other.total
        add((other.bytesUp, other.bytesDown))
    }
}
