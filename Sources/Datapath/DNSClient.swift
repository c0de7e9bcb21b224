import EgressCore
import NetPrimitives
import Reactor
import WireFormat

/// A program that asks over TCP (RFC 7766): messages with a two-byte length, several at once, answered in the order in
/// which answers come. Slow, silent and greedy clients end by themselves.
final class DNSClient {
    /// What no query needs.
    private static let maximumQuery = 4_096
    /// How many queries of one client are taken in one turn at most: others wait for theirs.
    private static let batch = 16
    /// How many queries of all clients of the resolver are taken in one turn, roughly: as many as over UDP.
    private static let sharedBatch = 64

    /// When the client last sent a whole query or got an answer.
    private(set) var lastActivity: MonotonicTime
    /// Called once, when the client is gone.
    var onEnd: () -> Void = {}

    private let loop: EventLoop
    private let resolver: DNSResolver
    private let socket: BufferedSocket
    private var pending = 0
    /// When the first byte of a message came whose last has not.
    private var messageStart: MonotonicTime?
    /// When a byte last came.
    private var lastByte: MonotonicTime
    private var input: [UInt8] = []
    private var timer: TimerToken?
    private var isClosed = false
    private var isTaking = false

    /// Takes ownership of `descriptor`, a non-blocking connected socket; on an error it stays the caller's.
    init(_ descriptor: CInt, loop: EventLoop, resolver: DNSResolver) throws(SystemError) {
        self.loop = loop
        self.resolver = resolver
        self.lastActivity = loop.now
        self.lastByte = loop.now
        self.socket = try BufferedSocket(descriptor, loop: loop)
    }

    /// Whether no query of it waits for an answer.
    var isIdle: Bool { pending == 0 && socket.pendingOutput == 0 }

    func start() {
        socket.onProgress = { [weak self] in self?.proceed() }
        arm()
    }

    func close() {
        guard !isClosed else { return }
        isClosed = true
        if let timer { loop.cancel(timer) }
        timer = nil
        socket.close()
        onEnd()
        onEnd = {}
    }
}

// MARK: - Messages

extension DNSClient {
    /// Takes the messages that are there, as far as the bounds allow. A client that keeps sending gets its next turn
    /// after the others.
    private func proceed() {
        // Answers that come at once must not begin another round inside this one.
        guard !isTaking, !isClosed else { return }
        isTaking = true
        takeInput()
        let taken = takeMessages()
        isTaking = false
        guard !isClosed else { return }
        if taken > 0 {
            input.removeFirst(taken)
            messageStart = input.isEmpty ? nil : loop.now
            loop.runSoon(socket)
        } else if socket.isBroken || socket.isOutputBroken || socket.hasEnded && isIdle {
            close()
        }
    }

    /// Takes what was read, unless there is enough to do.
    private func takeInput() {
        guard input.count < 2 + Self.maximumQuery, !socket.input.isEmpty else { return }
        if input.isEmpty { messageStart = loop.now }
        lastByte = loop.now
        input += socket.takeInput()
    }

    /// Asks what the input holds in whole messages; returns how many bytes they take. Closes the client when it sends
    /// what no query is.
    private func takeMessages() -> Int {
        var start = 0
        let batch = min(Self.batch, max(Self.sharedBatch / max(resolver.clientCount, 1), 1))
        for _ in 0..<batch {
            guard pending < resolver.limits.maximumPendingOfClient, socket.pendingOutput < BufferedSocket.outputLimit
            else { break }
            let available = input.count - start
            guard available >= 2 else { break }
            let length = Int(input[start]) << 8 | Int(input[start + 1])
            guard length > 0, length <= Self.maximumQuery else {
                resolver.refuseOversized()
                close()
                break
            }
            guard available >= 2 + length else { break }
            ask(Array(input[(start + 2)..<(start + 2 + length)]))
            start += 2 + length
            guard !isClosed else { break }
        }
        return start
    }

    private func ask(_ message: [UInt8]) {
        pending += 1
        lastActivity = loop.now
        resolver.answer(message, over: .tcp) { [weak self] reply in
            self?.answer(with: reply)
        }
    }

    private func answer(with reply: [UInt8]?) {
        guard !isClosed else { return }
        // A response, or less than a header: not a client that can be served.
        guard let reply else { return close() }
        pending -= 1
        lastActivity = loop.now
        socket.send([UInt8(reply.count >> 8), UInt8(truncatingIfNeeded: reply.count)] + reply)
        // There may be room again for what waits.
        proceed()
    }
}

// MARK: - Time

extension DNSClient {
    private func arm() {
        let deadline = loop.now.advanced(bySeconds: 1)
        timer = loop.schedule(at: deadline) { [weak self] in self?.checkTime() }
    }

    /// Looks at the clock once a second; it need not be more exact.
    private func checkTime() {
        timer = nil
        guard !isClosed else { return }
        if let messageStart, loop.now.seconds(since: messageStart) >= resolver.limits.messageSeconds { return close() }
        let last = max(lastActivity, lastByte)
        if pending == 0, loop.now.seconds(since: last) >= resolver.limits.clientIdleSeconds { return close() }
        arm()
    }
}
