import EgressCore
import EgressPolicy
import NetPrimitives
import Reactor
import WireFormat

/// Runs ``HTTPForwarding`` on real sockets: reads what the client and the server say, judges each request, dials its
/// server, and writes only what was judged. The client's connection stays while requests name one server after another.
///
/// Why not a general HTTP stack: the forwarder must never pass on bytes that it did not itself understand, must not
/// reorder, pool or retry, and shares the sandbox's single loop thread with the pins it consults.
final class HTTPForwarder {
    /// How many times one connection moves what it has before others have their turn.
    private static let turnLimit = 16

    /// Called once, when the client's connection is closed; not after ``abort()``.
    var onEnd: () -> Void = {}

    enum Phase {
        /// Requests are read, judged and forwarded.
        case exchanging
        /// The server accepted an upgrade: both ways are relayed unseen.
        case handedOver(Relay)
        /// The last bytes are on their way to the client.
        case ending(Farewell)
        case closed
    }

    /// A server's connection.
    private struct Server {
        var socket: BufferedSocket
        var endpoint: Endpoint
        /// How many requests were sent to it.
        var requestCount = 0
        /// What the last of them was let through by.
        var admission: Admission?
    }

    /// What the current request was let through by.
    struct Admission {
        var name: DomainName?
        var endpoint: Endpoint
        var verdict: Verdict

        /// As a connection that says no more would have been let in.
        var ofTunnel: TunnelJudge.Admission { TunnelJudge.Admission(verdict, name: name) }
    }

    unowned let attachment: Attachment
    let course: Course
    var phase = Phase.exchanging
    var admission: Admission?
    /// The admission that was recorded last: one record for a run of requests to the same host.
    var recorded: (name: DomainName?, endpoint: Endpoint)?
    /// Counts judgements, so that an answer to an older question is recognised.
    var attempt = 0
    var connector: Connector?

    private let startedAt: MonotonicTime
    private let acceptedAt: MonotonicTime
    /// Whether it was counted how long the connection waited for its first server.
    private var isCounted = false
    private var machine = HTTPForwarding()
    private var clientDescriptor: CInt
    private var client: BufferedSocket?
    private var server: Server?
    /// What is being dialled for the current request.
    private var dialled: [Endpoint] = []
    /// Whether the current request's name was resolved for another address, the first being out of reach.
    var hasTriedOtherAddresses = false
    private var hasClientEnded = false
    private var hasServerEnded = false
    private var isPumping = false
    private var hasResponseBegun = false
    private var timer: TimerToken?
    private var isTimedAsIdle = false
    /// Bytes that servers took which are not connected any more.
    private var bytesUp: UInt64 = 0
    /// Bytes that the client took before an upgrade.
    private var bytesDown: UInt64 = 0

    /// Takes ownership of `downstream`, registered with no loop.
    init(attachment: Attachment, course: Course, downstream: CInt, acceptedAt: MonotonicTime) {
        self.attachment = attachment
        self.course = course
        self.clientDescriptor = downstream
        self.startedAt = attachment.loop.now
        self.acceptedAt = acceptedAt
    }

    /// Begins. `upstream`, if given, is the connected server of ``course`` with bytes that the client must get first.
    func start(upstream: (descriptor: CInt, toDownstream: [UInt8])?) {
        do {
            let socket = try BufferedSocket(clientDescriptor, loop: attachment.loop)
            clientDescriptor = -1
            client = socket
            socket.onProgress = { [weak self] in self?.pump() }
            if let upstream, let endpoint = course.endpoint {
                isCounted = true
                socket.send(upstream.toDownstream)
                try attach(upstream.descriptor, endpoint)
            }
        } catch {
            if let upstream, server == nil { Sockets.reset(upstream.descriptor) }
            return fail()
        }
        pump()
    }

    /// Ends at once; the client and the server see a reset.
    func abort() {
        onEnd = {}
        fail(isRevoked: true)
    }

    /// Bytes that were passed on so far, until its end was recorded.
    var bytes: (up: UInt64, down: UInt64) {
        switch phase {
        case .exchanging: (bytesUp + (server?.socket.bytesSent ?? 0), client?.bytesSent ?? 0)
        case .handedOver(let relay): (bytesUp + relay.bytes.up, bytesDown + relay.bytes.down)
        case .ending, .closed: (0, 0)
        }
    }

    /// Judges again after a policy change: what is no longer allowed ends before this returns.
    func reconsider() {
        switch phase {
        case .ending, .closed:
            break
        case .exchanging where admission == nil:
            // A name is being resolved, say: the request is judged by the policy then in force. The server of the one before
            // it may still be taking what it was sent.
            guard let server, let last = server.admission else { break }
            if verdictNow(last, at: server.endpoint).action == .deny { dropServer(isRevoked: true) }
        case .exchanging, .handedOver:
            guard let admission else { return fail(isRevoked: true) }
            let endpoints = connector == nil ? [admission.endpoint] : dialled
            guard endpoints.contains(where: { verdictNow(admission, at: $0).action == .deny }) else { return }
            if case .exchanging = phase, machine.isIdle { dropServer(isRevoked: true) } else { fail(isRevoked: true) }
        }
    }

    /// What the policy in force says of the request that was judged last; `nil` when none was let through.
    func verdictNow() -> Verdict? {
        admission.map { verdictNow($0, at: $0.endpoint) }
    }

    private func verdictNow(_ admission: Admission, at endpoint: Endpoint) -> Verdict {
        attachment.judge.judgeAgain(
            name: admission.name,
            destination: endpoint,
            basis: admission.verdict.shownBasis,
            once: admission.verdict.isOnce
        )
    }

    /// Whether nothing more is exchanged.
    var isEnding: Bool {
        switch phase {
        case .exchanging, .handedOver: false
        case .ending, .closed: true
        }
    }
}

// MARK: - Bytes

extension HTTPForwarder {
    private func pump() {
        guard case .exchanging = phase, !isPumping else { return }
        isPumping = true
        defer { isPumping = false }
        var turns = 0
        while case .exchanging = phase, takeFromClient() || takeFromServer() {
            turns += 1
            if turns == Self.turnLimit, let client {
                attachment.loop.runSoon(client)
                break
            }
        }
        watchTime()
    }

    /// Feeds the machine with what the client sent; `false` when there is nothing that it can take.
    private func takeFromClient() -> Bool {
        guard let client else { return false }
        client.fill()
        if client.isBroken || client.isOutputBroken {
            fail()
        } else if !client.input.isEmpty {
            let hasRoom = (server?.socket.pendingOutput ?? 0) < BufferedSocket.outputLimit
            guard machine.wantsDownstream, hasRoom else { return false }
            perform(machine.receivedFromDownstream(client.takeInput()))
        } else if client.hasEnded, !hasClientEnded {
            hasClientEnded = true
            perform(machine.downstreamEndedInput())
        } else {
            return false
        }
        return true
    }

    private func takeFromServer() -> Bool {
        guard let client, let socket = server?.socket, !hasServerEnded else { return false }
        socket.fill()
        if !socket.input.isEmpty {
            guard client.pendingOutput < BufferedSocket.outputLimit else { return false }
            perform(machine.receivedFromUpstream(socket.takeInput()))
        } else if socket.hasEnded || socket.isBroken {
            hasServerEnded = true
            perform(machine.upstreamEnded(isBroken: socket.isBroken))
        } else {
            return false
        }
        return true
    }

    private func perform(_ actions: [HTTPForwarding.Action]) {
        for action in actions {
            guard case .exchanging = phase else { return }
            switch action {
            case .judge(let head):
                hasResponseBegun = false
                judge(head)
            case .sendUpstream(let bytes):
                server?.socket.send(bytes)
            case .sendDownstream(let bytes):
                hasResponseBegun = true
                client?.send(bytes)
            case .dropUpstream:
                dropServer()
            case .finish:
                end(with: [])
            case .handOver(let toUpstream, let toDownstream):
                handOver(toUpstream: toUpstream, toDownstream: toDownstream)
            case .refuseMalformed:
                recordDenied(.deny(.malformedHTTP), host: nil, endpoint: course.endpoint)
                hasResponseBegun ? fail() : end(with: ProxyResponse.badRequest)
            case .failUpstream(let isUnanswered):
                isUnanswered ? end(with: ProxyResponse.badGateway) : fail()
            case .loseUpstream:
                // The client's connection ends as the server's did: it was reused as well, and its owner knows whether
                // the request may be sent again. We do not.
                end(with: (server?.requestCount ?? 0) > 1 ? [] : ProxyResponse.badGateway)
            }
        }
    }

    /// The request that was judged may pass, and its server is connected.
    func proceedWithServer() {
        server?.requestCount += 1
        server?.admission = admission
        perform(machine.admit())
        pump()
    }
}

// MARK: - The server's connection

extension HTTPForwarder {
    /// Dials `endpoints` unless the server at hand is one of them, then lets the judged request pass.
    func serve(from endpoints: [Endpoint]) {
        if let server, endpoints.contains(server.endpoint), isReusable(server.socket) {
            admission?.endpoint = server.endpoint
            return proceedWithServer()
        }
        dropServer()
        dialled = endpoints
        connector = Connector(
            loop: attachment.loop,
            endpoints: endpoints,
            timeoutMilliseconds: attachment.limits.connectMilliseconds
        ) { [weak self] result in
            guard let self else { return }
            connector = nil
            do {
                let descriptor = try result.get()
                let endpoint = Sockets.peerEndpoint(descriptor) ?? endpoints[0]
                guard !attachment.leadsToNode(descriptor, endpoint) else {
                    Sockets.reset(descriptor)
                    return refuse(.deny(.guardRange), host: "\(endpoint.address)", endpoint: endpoint)
                }
                do {
                    try attach(descriptor, endpoint)
                } catch {
                    Sockets.reset(descriptor)
                    throw error
                }
                countConnection()
                // Which of the endpoints answered is what a policy change judges again.
                admission?.endpoint = endpoint
                proceedWithServer()
            } catch {
                serveFromOtherAddresses()
            }
        }
    }

    /// Counts how long it took to get to the first server. Those that later requests name are no wait for a connection.
    private func countConnection() {
        guard !isCounted else { return }
        isCounted = true
        attachment.latencies.countConnection(since: acceptedAt)
    }

    /// The server's address cannot be reached; the name's others are tried once, each judged as the first was.
    private func serveFromOtherAddresses() {
        guard !hasTriedOtherAddresses, let admission, admission.verdict.basis == .name, let name = admission.name else {
            return end(with: ProxyResponse.badGateway)
        }
        hasTriedOtherAddresses = true
        let question = attempt
        attachment.findEndpoints(of: name, port: admission.endpoint.port, otherThan: dialled) { [weak self] others in
            guard let self, case .exchanging = phase, attempt == question else { return }
            others.isEmpty ? end(with: ProxyResponse.badGateway) : serve(from: others)
        }
    }

    /// Whether the server's connection can serve another exchange. Bytes that came unasked would be taken for the answer
    /// to the next request.
    private func isReusable(_ socket: BufferedSocket) -> Bool {
        socket.fill()
        return !hasServerEnded && !socket.hasEnded && !socket.isBroken && !socket.isOutputBroken && socket.input.isEmpty
    }

    private func attach(_ descriptor: CInt, _ endpoint: Endpoint) throws(SystemError) {
        let socket = try BufferedSocket(descriptor, loop: attachment.loop)
        // Until it ends in order, also where this process does.
        Sockets.setAbortive(descriptor, true)
        socket.onProgress = { [weak self] in self?.pump() }
        server = Server(socket: socket, endpoint: endpoint)
        hasServerEnded = false
    }

    private func dropServer(isRevoked: Bool = false) {
        guard let (socket, endpoint, admission) = server.map({ ($0.socket, $0.endpoint, $0.admission) }) else { return }
        server = nil
        bytesUp += socket.bytesSent
        // A reset where something was cut off: nothing that was not judged complete may look complete. Also where nothing more
        // may leave: a server that answers early leaves what it was sent in the kernel, which would go on sending it.
        let isCutOff = isRevoked || socket.pendingOutput > 0 || !machine.isLastExchangeComplete
        guard !isCutOff, admission != nil, let descriptor = socket.release() else {
            return socket.close(abortively: isCutOff)
        }
        attachment.letGo(descriptor, at: endpoint, admission?.ofTunnel)
    }
}

// MARK: - The end

extension HTTPForwarder {
    /// Sends what is queued and `bytes`, then ends the client's connection so that they arrive.
    func end(with bytes: [UInt8]) {
        guard let client else { return fail() }
        stopWaiting()
        dropServer()
        let pending = client.takePendingOutput()
        recordClosed(bytesDown: client.bytesSent + UInt64(pending.count + bytes.count))
        guard let descriptor = client.release() else { return fail() }
        self.client = nil
        let farewell = Farewell(loop: attachment.loop, descriptor: descriptor, bytes: pending + bytes)
        phase = .ending(farewell)
        farewell.start { [weak self] in
            self?.phase = .closed
            self?.finishOnce()
        }
    }

    private func fail(isRevoked: Bool = false) {
        let previous = phase
        phase = .closed
        stopWaiting()
        switch previous {
        case .handedOver(let relay): relay.abort()
        case .ending(let farewell): farewell.abort()
        case .exchanging: recordClosed(bytesDown: client?.bytesSent ?? 0)
        case .closed: break
        }
        dropServer(isRevoked: isRevoked)
        client?.close(abortively: true)
        client = nil
        if clientDescriptor >= 0 { Sockets.reset(clientDescriptor) }
        clientDescriptor = -1
        finishOnce()
    }

    private func finishOnce() {
        let onEnd = onEnd
        self.onEnd = {}
        onEnd()
    }

    private func stopWaiting() {
        attempt += 1
        connector?.cancel()
        connector = nil
        if let timer { attachment.loop.cancel(timer) }
        timer = nil
    }

    private func handOver(toUpstream: [UInt8], toDownstream: [UInt8]) {
        guard let client, let socket = server?.socket else { return fail() }
        stopWaiting()
        let up = socket.takePendingOutput() + toUpstream + client.takeInput()
        let down = client.takePendingOutput() + toDownstream + socket.takeInput()
        bytesUp += socket.bytesSent
        bytesDown = client.bytesSent
        guard let downstream = client.release() else { return fail() }
        guard let upstream = socket.release() else {
            Sockets.reset(downstream)
            return fail()
        }
        self.client = nil
        server = nil
        let relay = Relay(
            loop: attachment.loop,
            downstream: downstream,
            upstream: upstream,
            initialToDownstream: down,
            initialToUpstream: up,
            keepsUndelivered: true,
            idleSeconds: attachment.limits.idleSeconds
        ) { [weak self] result in
            guard let self else {
                if let server = result.undelivered { Sockets.reset(server) }
                return
            }
            phase = .closed
            if let server = result.undelivered {
                attachment.letGo(server, at: admission?.endpoint, admission?.ofTunnel)
            }
            bytesUp += result.bytesUp
            recordClosed(bytesDown: bytesDown + result.bytesDown)
            finishOnce()
        }
        phase = .handedOver(relay)
        relay.start()
    }

    private func recordClosed(bytesDown: UInt64) {
        guard let recorded else { return }
        self.recorded = nil
        var event = attachment.connectionEvent(
            .connectionClosed,
            layer: .httpHost,
            verdict: admission?.verdict,
            name: recorded.name,
            endpoint: recorded.endpoint
        )
        event.layer = nil
        event.bytesUp = bytesUp + (server?.socket.bytesSent ?? 0)
        event.bytesDown = bytesDown
        event.durationMilliseconds = (attachment.loop.now.nanoseconds - startedAt.nanoseconds) / 1_000_000
        attachment.record(event)
    }
}

// MARK: - Deadlines

extension HTTPForwarder {
    /// The first head must be complete by the deadline; an exchange, the rest between two and the heads that follow may last
    /// as long as a tunnel may be silent: whoever is let in could be silent in an exchange as well.
    private func watchTime() {
        guard case .exchanging = phase else { return }
        let isReadingHead = machine.wantsDownstream && admission == nil
        if timer != nil, isReadingHead, !isTimedAsIdle { return }  // a slow head does not buy itself time
        if let timer { attachment.loop.cancel(timer) }
        isTimedAsIdle = !isReadingHead
        let limits = attachment.limits
        let milliseconds = isReadingHead ? limits.peekMilliseconds : limits.idleSeconds * 1_000
        let deadline = attachment.loop.now.advanced(byNanoseconds: milliseconds * 1_000_000)
        timer = attachment.loop.schedule(at: deadline) { [weak self] in
            guard let self else { return }
            timer = nil
            if isReadingHead { recordDenied(.deny(.deadline), host: nil, endpoint: course.endpoint) }
            fail()
        }
    }
}
