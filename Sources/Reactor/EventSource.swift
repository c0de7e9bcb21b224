internal import CLinux

/// What a registered descriptor's owner wants to be told of. Hang-ups and errors are always told.
public struct Interest: OptionSet, Hashable, Sendable {
    /// The bits.
    public let rawValue: UInt8

    /// A set from its bits.
    public init(rawValue: UInt8) { self.rawValue = rawValue }

    /// Bytes, a connection or an end of the stream to read.
    public static let readable = Interest(rawValue: 1)
    /// Room to write.
    public static let writable = Interest(rawValue: 2)
    /// Urgent (out-of-band) data, `EPOLLPRI`.
    public static let urgent = Interest(rawValue: 4)

    /// The epoll event mask.
    var mask: UInt32 {
        var mask: UInt32 = 0
        if contains(.readable) { mask |= EPOLLIN.rawValue | EPOLLRDHUP.rawValue }
        if contains(.writable) { mask |= EPOLLOUT.rawValue }
        if contains(.urgent) { mask |= EPOLLPRI.rawValue }
        return mask
    }
}

/// What has become of a registered descriptor.
public struct Readiness: OptionSet, Hashable, Sendable {
    /// The bits.
    public let rawValue: UInt8

    /// A set from its bits.
    public init(rawValue: UInt8) { self.rawValue = rawValue }

    /// Reading will not block.
    public static let readable = Readiness(rawValue: 1)
    /// Writing will not block.
    public static let writable = Readiness(rawValue: 2)
    /// Both directions of the stream have ended, or it was never connected (`EPOLLHUP`).
    public static let hangup = Readiness(rawValue: 4)
    /// An error waits to be fetched by the next call (`EPOLLERR`).
    public static let error = Readiness(rawValue: 8)
    /// The peer has ended its direction; what it sent before can still be read (`EPOLLRDHUP`).
    public static let peerEnded = Readiness(rawValue: 16)
    /// Urgent (out-of-band) data (`EPOLLPRI`).
    public static let urgent = Readiness(rawValue: 32)

    /// The readiness that an epoll event mask tells of.
    init(mask: UInt32) {
        var bits: UInt8 = 0
        if mask & EPOLLIN.rawValue != 0 { bits |= Readiness.readable.rawValue }
        if mask & EPOLLOUT.rawValue != 0 { bits |= Readiness.writable.rawValue }
        if mask & EPOLLHUP.rawValue != 0 { bits |= Readiness.hangup.rawValue }
        if mask & EPOLLERR.rawValue != 0 { bits |= Readiness.error.rawValue }
        if mask & EPOLLRDHUP.rawValue != 0 { bits |= Readiness.peerEnded.rawValue }
        if mask & EPOLLPRI.rawValue != 0 { bits |= Readiness.urgent.rawValue }
        self.init(rawValue: bits)
    }
}

/// Something that is told of a descriptor's readiness. It has at most one registration, with one loop, and is confined
/// to that loop's thread.
open class EventSource {
    /// Where the loop keeps the registration; `nil` when there is none.
    final var registration: EventLoop.Registration?

    /// A source that is registered with no loop.
    public init() {}

    /// Called by the loop with what has become of the descriptor; never after ``EventLoop/deregister(_:)``. Empty
    /// readiness means that the source asked to be called again: ``EventLoop/runSoon(_:)``.
    open func handle(_ readiness: Readiness) {}
}
