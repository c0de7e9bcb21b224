/// A connected socket that a loop watches already, edge-triggered and for everything.
public struct WatchedSocket {
    /// The socket.
    public let descriptor: CInt
    /// What is registered for it.
    public let source: KeepingSource
}

/// A source that keeps what it is told, for whoever takes its registration over.
open class KeepingSource: EventSource {
    /// What was told since it was registered, all together. Whoever overrides ``EventSource/handle(_:)`` adds to it.
    public final var told: Readiness = []
}
