/// What a relay has come to, for another process that goes on with it.
public struct RelayState: Hashable, Sendable, Codable {
    /// One direction of it.
    struct Direction: Hashable, Sendable, Codable {
        /// Bytes that the sink's kernel buffer took.
        var delivered: UInt64
        /// Bytes that were read and not delivered.
        var held: [UInt8]
        /// As those, in a pipe.
        var bytesInPipe: Int
        /// Whether the source has said all.
        var sourceHasEnded: Bool
        /// Whether the sink knows that.
        var sinkWasTold: Bool
    }

    let up: Direction
    let down: Direction

    /// How many descriptors belong to it: both sockets, and the ends of each pipe that holds bytes.
    public var descriptorCount: Int {
        2 + [up, down].reduce(0) { $0 + ($1.bytesInPipe > 0 ? 2 : 0) }
    }

    /// Bytes delivered so far, up and down.
    public var bytes: (up: UInt64, down: UInt64) { (up.delivered, down.delivered) }
}
