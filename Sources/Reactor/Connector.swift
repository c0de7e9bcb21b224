import Glibc
public import NetPrimitives

/// Connects to the first of several endpoints that answers. They are tried in order; the next one is begun when the one
/// before has failed or has not answered for a moment (RFC 8305, "Happy Eyeballs"), and the first success ends the rest.
///
/// Lives until it has called its completion or was cancelled, whoever else holds it.
public final class Connector {
    /// RFC 8305 section 5, "Connection Attempt Delay".
    private static let staggerMilliseconds: UInt64 = 250

    private let loop: EventLoop
    private let endpoints: [Endpoint]
    private var remaining: ArraySlice<Endpoint>
    private var attempts: [Attempt] = []
    private var lastError: SystemError?
    private var staggerTimer: TimerToken?
    private var deadlineTimer: TimerToken?
    private var completion: ((Result<WatchedSocket, SystemError>) -> Void)?

    /// Begins. `completion` is called once, never from within this call, unless cancelled before: with a connected
    /// non-blocking socket that is registered with no loop and the receiver's to close, or with the error of the last
    /// attempt that failed.
    public convenience init(
        loop: EventLoop,
        endpoints: [Endpoint],
        timeoutMilliseconds: UInt64,
        completion: @escaping (Result<CInt, SystemError>) -> Void
    ) {
        self.init(
            loop: loop,
            endpoints: endpoints,
            timeoutMilliseconds: timeoutMilliseconds,
            watched: { result in
                completion(
                    result.map { socket in
                        loop.deregister(socket.source)
                        return socket.descriptor
                    }
                )
            }
        )
    }

    /// Begins as the initialiser does; but the socket stays registered, for everything, with a source that keeps what it is
    /// told until the receiver has it deregistered or handed on.
    public static func watching(
        loop: EventLoop,
        endpoints: [Endpoint],
        timeoutMilliseconds: UInt64,
        completion: @escaping (Result<WatchedSocket, SystemError>) -> Void
    ) -> Connector {
        Connector(loop: loop, endpoints: endpoints, timeoutMilliseconds: timeoutMilliseconds, watched: completion)
    }

    private init(
        loop: EventLoop,
        endpoints: [Endpoint],
        timeoutMilliseconds: UInt64,
        watched completion: @escaping (Result<WatchedSocket, SystemError>) -> Void
    ) {
        self.loop = loop
        self.endpoints = endpoints
        self.remaining = endpoints[...]
        self.completion = completion
        let timeout = timeoutMilliseconds.multipliedReportingOverflow(by: 1_000_000)
        let deadline = loop.now.advanced(byNanoseconds: timeout.overflow ? .max : timeout.partialValue)
        deadlineTimer = loop.schedule(at: deadline) { self.timeOut() }
        startNext()
    }

    /// Ends all attempts; the completion is not called.
    public func cancel() {
        end()
    }

    private func startNext() {
        disarmStagger()
        while let endpoint = remaining.popFirst() {
            do {
                attempts.append(try Attempt(self, loop: loop, endpoint: endpoint))
                guard !remaining.isEmpty else { return }
                let next = loop.now.advanced(byNanoseconds: Self.staggerMilliseconds * 1_000_000)
                staggerTimer = loop.schedule(at: next) {
                    self.staggerTimer = nil
                    self.startNext()
                }
                return
            } catch {
                lastError = error
            }
        }
        guard attempts.isEmpty else { return }
        // Nothing is under way any more. Never at once: this may be the initialiser.
        staggerTimer = loop.schedule(at: loop.now) { self.giveUp(EDESTADDRREQ) }
    }

    private func timeOut() {
        deadlineTimer = nil
        lastError = nil
        giveUp(ETIMEDOUT)
    }

    /// Fails with the last attempt's error; without one, with `code`.
    private func giveUp(_ code: CInt) {
        let names = endpoints.map(\.description).joined(separator: ", ")
        finish(.failure(lastError ?? SystemError(operation: "connect", errno: code, context: names)))
    }

    fileprivate func failed(_ attempt: Attempt, _ error: SystemError) {
        lastError = error
        attempts.removeAll { $0 === attempt }
        startNext()
    }

    fileprivate func connected(_ attempt: Attempt, _ socket: WatchedSocket) {
        attempts.removeAll { $0 === attempt }
        finish(.success(socket))
    }

    private func finish(_ result: Result<WatchedSocket, SystemError>) {
        let completion = completion
        end()
        completion?(result)
    }

    private func end() {
        completion = nil
        remaining = []
        disarmStagger()
        if let deadlineTimer { loop.cancel(deadlineTimer) }
        deadlineTimer = nil
        let attempts = attempts
        self.attempts = []
        attempts.forEach { $0.end() }
    }

    private func disarmStagger() {
        if let staggerTimer { loop.cancel(staggerTimer) }
        staggerTimer = nil
    }
}

/// One socket that is connecting.
private final class Attempt: KeepingSource {
    private let connector: Connector
    private let loop: EventLoop
    private let endpoint: Endpoint
    private var descriptor: CInt

    init(_ connector: Connector, loop: EventLoop, endpoint: Endpoint) throws(SystemError) {
        self.connector = connector
        self.loop = loop
        self.endpoint = endpoint
        descriptor = try Sockets.connecting(to: endpoint, pass: loop.upstreamPass)
        super.init()
        do {
            // Whoever gets the socket wants to be told of the rest as well.
            let interest: Interest = [.readable, .writable, .urgent]
            try loop.register(self, descriptor: descriptor, interest: interest, edgeTriggered: true)
        } catch {
            Sockets.close(descriptor)
            throw error
        }
    }

    override func handle(_ readiness: Readiness) {
        told.formUnion(readiness)
        // Connected already; or nothing that says whether it is.
        guard descriptor >= 0, !readiness.isDisjoint(with: [.writable, .hangup, .error]) else { return }
        // One that failed is never without these (tcp_poll in the kernel).
        let code = readiness.isDisjoint(with: [.hangup, .error]) ? 0 : Sockets.takeError(descriptor)
        if code == 0 {
            let connected = WatchedSocket(descriptor: descriptor, source: self)
            descriptor = -1
            connector.connected(self, connected)
        } else {
            end()
            connector.failed(self, SystemError(operation: "connect", errno: code, context: "\(endpoint)"))
        }
    }

    func end() {
        guard descriptor >= 0 else { return }
        loop.deregister(self)
        Sockets.close(descriptor)
        descriptor = -1
    }
}
