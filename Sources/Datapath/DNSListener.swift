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
        datagrams.answer(query)
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
