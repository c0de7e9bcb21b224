import EgressCore
import NetPrimitives
public import Reactor
import WireFormat

/// Receives a sandbox's DNS queries on the sockets of one address family inside its namespace: datagrams here, TCP
/// clients through ``DNSClient``.
public final class DNSListener {
    private unowned let attachment: Attachment
    private let resolver: DNSResolver
    private let datagrams: DNSDatagramSocket
    private var listener: Listener?
    /// By the order in which they came.
    private var clients: [UInt64: DNSClient] = [:]
    private var nextClient: UInt64 = 0

    /// Takes ownership of `udp`, a bound UDP socket, and `tcp`, a listening one; on an error both stay the caller's.
    public init(attachment: Attachment, resolver: DNSResolver, udp: CInt, tcp: CInt) throws(SystemError) {
        self.attachment = attachment
        self.resolver = resolver
        self.datagrams = DNSDatagramSocket(udp, loop: attachment.loop, resolver: resolver)
        try attachment.loop.register(datagrams, descriptor: udp, interest: .readable)
        do {
            listener = try Listener(loop: attachment.loop, descriptor: tcp) { [weak self] client, _ in
                guard let self else { return Sockets.reset(client) }
                begin(client)
            }
        } catch {
            attachment.loop.deregister(datagrams)
            throw error
        }
    }

    /// Closes the sockets and every client.
    public func stop() {
        guard listener != nil else { return }
        listener?.close()
        listener = nil
        datagrams.close()
        clients.values.forEach { $0.close() }
    }

    /// Gives up the sockets, and the queries that wait for an answer, for another process to go on with. TCP clients are
    /// closed; they ask again. `nil` when it has stopped.
    public func handOver() -> (udp: CInt, tcp: CInt, queries: [HandedQuery])? {
        guard let tcp = listener?.release() else { return nil }
        listener = nil
        clients.values.forEach { $0.close() }
        let (udp, queries) = datagrams.release()
        return (udp, tcp, queries)
    }

    /// Answers a query that another process has received on this listener's socket for datagrams.
    public func takeOver(_ query: HandedQuery) {
        datagrams.answer(query.message, to: query.source)
    }

    private func begin(_ descriptor: CInt) {
        if resolver.clientCount >= resolver.limits.maximumClients, !makeRoom() {
            attachment.tell(.dnsClients)
            return Sockets.reset(descriptor)
        }
        let client: DNSClient
        do {
            client = try DNSClient(descriptor, loop: attachment.loop, resolver: resolver)
        } catch {
            return Sockets.reset(descriptor)
        }
        let key = nextClient
        nextClient += 1
        clients[key] = client
        resolver.clientCount += 1
        client.onEnd = { [weak self] in
            guard let self else { return }
            clients[key] = nil
            resolver.clientCount -= 1
        }
        client.start()
    }

    /// Closes the client that has been idle longest: RFC 7766 6.2.3 lets a server do so, and one that is idle must not
    /// keep out one that asks.
    private func makeRoom() -> Bool {
        let idle = clients.filter(\.value.isIdle).min {
            ($0.value.lastActivity, $0.key) < ($1.value.lastActivity, $1.key)
        }
        idle?.value.close()
        return idle != nil
    }
}

/// A UDP socket that programs send queries to. Answers leave from it as well, so that the kernel's redirect finds the
/// way back.
final class DNSDatagramSocket: EventSource {
    /// No query needs more: a name of 255 bytes, and EDNS options.
    private static let maximumQuery = 4_096
    /// How many queries are taken in one turn; other sandboxes wait for theirs.
    private static let batch = 64

    private let loop: EventLoop
    private let resolver: DNSResolver
    private var descriptor: CInt
    /// Queries that wait for an answer from outside.
    private var pending: [UInt64: HandedQuery] = [:]
    private var nextPending: UInt64 = 0
    /// How many queries the kernel had lost when it was last asked. What comes too fast waits in the socket, up to a bound.
    private var lost: UInt32
    private var timer: TimerToken?

    init(_ descriptor: CInt, loop: EventLoop, resolver: DNSResolver) {
        self.descriptor = descriptor
        self.lost = Sockets.lostDatagrams(descriptor)
        self.loop = loop
        self.resolver = resolver
    }

    func close() {
        guard descriptor >= 0 else { return }
        tellOfLoss()
        loop.deregister(self)
        Sockets.close(descriptor)
        descriptor = -1
    }

    /// Stops receiving, and gives up the socket with the queries that are not answered.
    func release() -> (CInt, [HandedQuery]) {
        tellOfLoss()
        loop.deregister(self)
        defer { descriptor = -1 }
        return (descriptor, pending.sorted { $0.key < $1.key }.map(\.value))
    }

    /// Asks the kernel for what it has lost, a second after something came.
    private func watchLoss() {
        guard timer == nil else { return }
        timer = loop.schedule(at: loop.now.advanced(bySeconds: 1)) { [weak self] in self?.tellOfLoss() }
    }

    private func tellOfLoss() {
        if let timer { loop.cancel(timer) }
        timer = nil
        guard descriptor >= 0 else { return }
        let now = Sockets.lostDatagrams(descriptor)
        if now != lost { resolver.tellOfLostQueries(UInt64(now &- lost)) }
        lost = now
    }

    override func handle(_ readiness: Readiness) {
        watchLoss()
        for _ in 0..<Self.batch where descriptor >= 0 {
            switch Sockets.receiveDatagram(descriptor, upTo: Self.maximumQuery + 1) {
            case .wouldBlock:
                return
            case .failed:
                // An earlier answer could not be delivered; the error is taken with this call.
                continue
            case .datagram(let message, let source):
                guard message.count <= Self.maximumQuery else {
                    resolver.refuseOversized()
                    continue
                }
                answer(message, to: source)
            }
        }
    }

    func answer(_ message: [UInt8], to source: Endpoint) {
        let number = nextPending
        var isAnswered = false
        resolver.answer(message, over: .udp) { [weak self] reply in
            isAnswered = true
            guard let self, descriptor >= 0 else { return }
            if !pending.isEmpty { pending[number] = nil }
            // A full buffer loses the answer, as networks do; the program asks again.
            if let reply { _ = Sockets.sendDatagram(descriptor, reply, to: source) }
        }
        guard !isAnswered else { return }
        pending[number] = HandedQuery(message: message, source: source)
        nextPending += 1
    }
}
