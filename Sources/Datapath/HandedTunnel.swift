import EgressPolicy
import Reactor

/// A connection that one process had, and the next one goes on with.
public struct HandedTunnel: Sendable {
    /// What is known of it.
    public struct Description: Codable, Sendable {
        /// Where it was going when nothing was taken of what the client sent, the server that it is connected to when it
        /// is relayed; `nil` for a client of the explicit proxy that has not said.
        var endpoint: String?
        /// When it was accepted, in nanoseconds of the monotonic clock, which all processes share.
        var acceptedAt: UInt64
        /// For one that was judged and connected.
        var relayed: Relayed?

        /// How many descriptors belong to it.
        public var descriptorCount: Int { relayed?.relay.descriptorCount ?? 1 }
    }

    /// What a connection was let in by, for it to be judged again by the policy that is in force then; and its relay.
    struct Relayed: Codable, Sendable {
        var name: String?
        var basis: Verdict.Basis
        /// Whether somebody allowed it once; a process that knew nothing of that says nothing.
        var isOnce: Bool?
        /// The name that a client of the explicit proxy asked for.
        var authority: String?
        /// How it came to us, and by what it was judged, in words that another version may not know; a process that told
        /// nobody of that says nothing.
        var opening: String?
        var layer: String?
        /// Bytes that passed before the relay took over.
        var bytesUpBefore: UInt64
        var bytesDownBefore: UInt64
        var relay: RelayState
        /// Of a relay that has a gate.
        var hello: HelloGate.Memo?
    }

    /// What is known of it.
    public let description: Description
    /// The client's socket, and behind it what a relay has besides: the server's, then the ends of its pipes.
    public let descriptors: [CInt]

    /// A connection from its parts.
    public init(_ description: Description, descriptors: [CInt]) {
        self.description = description
        self.descriptors = descriptors
    }

    /// Ends it, when nobody goes on with it: both peers see a reset.
    public func close() {
        let socketCount = 2
        descriptors.prefix(socketCount).forEach(Sockets.reset)
        descriptors.dropFirst(socketCount).forEach(Sockets.close)
    }
}
