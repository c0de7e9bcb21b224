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

    /// What its gate has come to, while it is not open.
    struct Gate: Hashable, Sendable, Codable {
        /// Whether upstream's answer was seen, and has what downstream says looked at.
        var isLooking: Bool
        /// How many bytes may go up before the next look.
        var allowance: Int
    }

    /// Of a relay both of whose directions have ended.
    public static let ended = {
        let direction = Direction(delivered: 0, held: [], bytesInPipe: 0, sourceHasEnded: true, sinkWasTold: true)
        return RelayState(up: direction, down: direction, gate: nil)
    }()

    let up: Direction
    let down: Direction
    /// A version that knew nothing of gates says nothing.
    let gate: Gate?

    /// Whether it goes on with a gate only.
    public var hasGate: Bool { gate != nil }

    /// How many descriptors belong to it: both sockets, and the ends of each pipe that holds bytes.
    public var descriptorCount: Int {
        2 + [up, down].reduce(0) { $0 + ($1.bytesInPipe > 0 ? 2 : 0) }
    }

    /// Bytes delivered so far, up and down.
    public var bytes: (up: UInt64, down: UInt64) { (up.delivered, down.delivered) }
}
