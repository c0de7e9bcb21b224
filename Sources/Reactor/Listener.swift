import Glibc
public import NetPrimitives

/// Accepts connections on a listening socket. When the process has no descriptor left it waits a moment instead of
/// being told of the same connection again and again.
public final class Listener: EventSource {
    /// How many connections are accepted in one turn at most.
    private static let maximumBatch = 64
    /// After so many turns in a row in which there were as many connections as were asked for, more are.
    private static let busyTurns = 4
    private static let pauseMilliseconds: UInt64 = 100

    private let loop: EventLoop
    private let descriptor: CInt
    private var onAccept: ((CInt, Endpoint) -> Void)?
    private var pauseTimer: TimerToken?
    /// How many connections are accepted in this turn. To ask until there is none would cost a call a connection where they
    /// come one by one; what is left is told again.
    private var batch = 1
    private var fullTurns = 0
    private var lastTurn: UInt64 = 0

    /// Takes ownership of `descriptor`, a listening socket of any namespace; on an error it stays the caller's.
    /// `onAccept` gets non-blocking sockets, which are its to close, and where they come from.
    public init(
        loop: EventLoop,
        descriptor: CInt,
        onAccept: @escaping (CInt, Endpoint) -> Void
    ) throws(SystemError) {
        self.loop = loop
        self.descriptor = descriptor
        self.onAccept = onAccept
        super.init()
        try loop.register(self, descriptor: descriptor, interest: .readable)
    }

    /// Where it listens.
    public var endpoint: Endpoint? { onAccept == nil ? nil : Sockets.localEndpoint(descriptor) }

    /// Closes the socket. What waits to be accepted is reset by the kernel.
    public func close() {
        release().map(Sockets.close)
    }

    /// Accepts nothing more, and gives up the socket: what waits to be accepted waits on. `nil` when it is closed.
    public func release() -> CInt? {
        guard onAccept != nil else { return nil }
        onAccept = nil
        if let pauseTimer { loop.cancel(pauseTimer) }
        pauseTimer = nil
        loop.deregister(self)
        return descriptor
    }

    /// Accepts what waits.
    public override func handle(_ readiness: Readiness) {
        if loop.turn != lastTurn &+ 1 { (batch, fullTurns) = (1, 0) }
        lastTurn = loop.turn
        for count in 0..<batch {
            // The callback may have closed the listener.
            guard let onAccept else { return }
            switch Sockets.accept(descriptor) {
            case .accepted(let connection, let peer):
                onAccept(connection, peer)
            case .wouldBlock:
                (batch, fullTurns) = (max(count, 1), 0)
                return
            case .failed:
                return pause()
            }
        }
        fullTurns += 1
        if fullTurns >= Self.busyTurns { (batch, fullTurns) = (min(batch * 2, Self.maximumBatch), 0) }
    }

    private func pause() {
        guard pauseTimer == nil else { return }
        loop.update(self, interest: [])
        pauseTimer = loop.schedule(at: loop.now.advanced(byNanoseconds: Self.pauseMilliseconds * 1_000_000)) {
            [weak self] in
            guard let self, onAccept != nil else { return }
            pauseTimer = nil
            loop.update(self, interest: .readable)
        }
    }
}
