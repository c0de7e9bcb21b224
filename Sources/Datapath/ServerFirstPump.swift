import NetPrimitives
import Reactor

/// Carries what a server says to a client that has said nothing yet. One direction only: the client's bytes stay
/// unread, to be judged when they come; then the socket and what was not yet delivered go to the relay.
final class ServerFirstPump: EventSource {
    /// How it ended.
    enum End {
        /// The server ended its side, and everything it said was delivered.
        case finished
        /// Either side broke.
        case broken
    }

    private static let chunk = 16 * 1024
    /// How many times it reads before others have their turn.
    private static let turnLimit = 32

    /// Called when the server ended or either side broke; never after ``stop()`` or ``release()``. The callee must let
    /// go of the pump's server then.
    var onEnd: (End) -> Void = { _ in }
    /// Bytes that the client's kernel buffer took.
    private(set) var delivered: UInt64 = 0
    /// When bytes were last delivered.
    private(set) var lastProgress: MonotonicTime

    private let loop: EventLoop
    private var upstream: CInt
    private let downstream: CInt
    private var pending: ArraySlice<UInt8> = []
    private var retry: TimerToken?

    /// Takes ownership of `upstream`; `downstream` stays the tunnel's, which also has it registered.
    init(loop: EventLoop, upstream: CInt, downstream: CInt) throws(SystemError) {
        self.loop = loop
        self.upstream = upstream
        self.downstream = downstream
        self.lastProgress = loop.now
        super.init()
        try loop.register(self, descriptor: upstream, interest: .readable, edgeTriggered: true)
    }

    /// Delivers what has come since the server was dialled.
    func start() {
        pump()
    }

    /// Ends the server's connection.
    func stop() {
        let (descriptor, _) = release()
        if descriptor >= 0 { Sockets.reset(descriptor) }
    }

    /// Gives the server's socket away, registered with no loop, with the bytes read from it and not yet delivered.
    func release() -> (upstream: CInt, pending: [UInt8]) {
        onEnd = { _ in }
        if let retry { loop.cancel(retry) }
        retry = nil
        guard upstream >= 0 else { return (-1, []) }
        loop.deregister(self)
        defer { upstream = -1 }
        return (upstream, Array(pending))
    }

    /// Sends `bytes` to the server, all or nothing; `false` when it cannot be done, and the connection must end.
    func send(_ bytes: [UInt8]) -> Bool {
        Sockets.send(upstream, bytes[...]) == .bytes(bytes.count)
    }

    override func handle(_ readiness: Readiness) {
        pump()
    }

    private func pump() {
        for _ in 0..<Self.turnLimit where upstream >= 0 {
            while !pending.isEmpty {
                switch Sockets.send(downstream, pending) {
                case .bytes(let count):
                    pending = pending.dropFirst(count)
                    delivered += UInt64(count)
                    lastProgress = loop.now
                case .wouldBlock: return deliverSoon()
                case .ended, .failed: return onEnd(.broken)
                }
            }
            switch Sockets.receive(upstream, upTo: Self.chunk) {
            case .bytes(let bytes): pending = bytes[...]
            case .wouldBlock: return
            case .ended: return onEnd(.finished)
            case .failed: return onEnd(.broken)
            }
        }
        if upstream >= 0 { loop.runSoon(self) }
    }

    /// A client that reads slowly: its socket is registered for input by the tunnel, so room is looked for by the clock.
    private func deliverSoon() {
        guard retry == nil else { return }
        retry = loop.schedule(at: loop.now.advanced(byNanoseconds: 20_000_000)) { [weak self] in
            self?.retry = nil
            self?.pump()
        }
    }
}
