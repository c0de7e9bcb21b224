internal import CAres
public import NetPrimitives
public import Reactor

/// Takes DNS messages to upstream servers and brings their answers: timeouts, failover, TCP when an answer was
/// truncated, a new random port for every attempt. What the messages say is the caller's: it encodes the query, with a
/// random id and random letter case, and checks them in the answer.
///
/// Servers are asked in the order given; one that has failed lately is asked after the others. Confined to its loop's
/// thread.
public final class UpstreamResolver {
    struct Server {
        let endpoint: Endpoint
        /// Asked only after the others until then; `nil` when its last attempt went well.
        var avoidedUntil: MonotonicTime?
    }

    /// How many unused channels are kept at most. One takes some 80 KiB, and a file and hundreds of allocations to make.
    private static let idleLimit = 64
    /// After so long, those that were not needed meanwhile are given back, in seconds.
    private static let idleSeconds: UInt64 = 10
    /// How long a server that failed is asked after the others.
    private static let avoidSeconds: UInt64 = 30

    let loop: EventLoop
    let tries: Int
    private(set) var servers: [Server]
    private let timeoutMilliseconds: Int
    private let usesTCPAlone: Bool
    /// Says of an answer that has just come whether it counts.
    let accepts: () -> Bool
    private var idleChannels: [AresChannel] = []
    /// The fewest that were unused at a time since they were last looked through.
    private var leastIdle = 0
    private var idleTimer: TimerToken?
    private var active: [ObjectIdentifier: UpstreamQuery] = [:]
    private var isClosed = false

    /// A resolver that asks `servers`, every one at most `tries` times, and waits `timeoutMilliseconds` for each answer.
    /// With `usesTCPAlone` it does without UDP, for servers in whose name others could send datagrams. `accepts` is asked
    /// when an answer has come; one that it refuses is none.
    public init(
        loop: EventLoop,
        servers: [Endpoint],
        timeoutMilliseconds: Int = 2_000,
        tries: Int = 2,
        usesTCPAlone: Bool = false,
        accepts: @escaping () -> Bool = { true }
    ) throws(UpstreamError) {
        precondition(timeoutMilliseconds > 0 && tries > 0)
        guard !servers.isEmpty else { throw .other(code: ARES_ENODATA, text: "no upstream server") }
        self.loop = loop
        self.servers = servers.map { Server(endpoint: $0) }
        self.timeoutMilliseconds = timeoutMilliseconds
        self.tries = tries
        self.usesTCPAlone = usesTCPAlone
        self.accepts = accepts
        idleChannels = [try makeChannel(usesEDNS: true)]
    }

    deinit {
        if let idleTimer { loop.cancel(idleTimer) }
        for query in active.values { query.end() }
        for channel in idleChannels { channel.destroy() }
    }

    /// Sends `query`, a DNS message without TCP's length prefix; an OPT record in it must be its last bytes and without
    /// options. `completion` is called once, never from within this call, unless the query is cancelled before or the
    /// resolver is released. An answer may have any response code: SERVFAIL, NOTIMP and REFUSED only when no other
    /// server has a better one.
    @discardableResult
    public func send(
        _ query: [UInt8],
        completion: @escaping (Result<[UInt8], UpstreamError>) -> Void
    ) -> UpstreamQuery {
        let query = UpstreamQuery(self, query, completion)
        if isClosed {
            loop.schedule(at: loop.now) { query.finish(.failure(.cancelled)) }
        } else {
            active[ObjectIdentifier(query)] = query
            query.askNext()
        }
        return query
    }

    /// Ends every query with ``UpstreamError/cancelled`` and gives everything back to c-ares. May be called from a
    /// completion.
    public func close() {
        isClosed = true
        for query in Array(active.values) { query.finish(.failure(.cancelled)) }
        for channel in idleChannels { channel.destroy() }
        idleChannels = []
        if let idleTimer { loop.cancel(idleTimer) }
        idleTimer = nil
    }
}

// MARK: - For queries

extension UpstreamResolver {
    /// The servers in the order to ask them now.
    func order() -> [Int] {
        let now = loop.now
        guard servers.contains(where: { $0.avoidedUntil != nil }) else { return Array(servers.indices) }
        let isAvoided = servers.map { $0.avoidedUntil.map { $0 > now } ?? false }
        return servers.indices.filter { !isAvoided[$0] } + servers.indices.filter { isAvoided[$0] }
    }

    func note(_ server: Int, didAnswer: Bool) {
        servers[server].avoidedUntil = didAnswer ? nil : loop.now.advanced(bySeconds: Self.avoidSeconds)
    }

    func takeChannel(usesEDNS: Bool) throws(UpstreamError) -> AresChannel {
        if let index = idleChannels.lastIndex(where: { $0.usesEDNS == usesEDNS }) {
            leastIdle = min(leastIdle, idleChannels.count - 1)
            return idleChannels.remove(at: index)
        }
        leastIdle = 0
        return try makeChannel(usesEDNS: usesEDNS)
    }

    private func makeChannel(usesEDNS: Bool) throws(UpstreamError) -> AresChannel {
        try AresChannel(
            loop: loop,
            timeoutMilliseconds: timeoutMilliseconds,
            usesEDNS: usesEDNS,
            usesTCPAlone: usesTCPAlone
        )
    }

    func giveBack(_ channel: AresChannel) {
        if isClosed || !channel.isReusable || idleChannels.count >= Self.idleLimit {
            channel.destroy()
        } else {
            idleChannels.append(channel)
            scheduleThinning()
        }
    }

    private func scheduleThinning() {
        guard idleTimer == nil, idleChannels.count > 1 else { return }
        leastIdle = idleChannels.count
        idleTimer = loop.schedule(at: loop.now.advanced(bySeconds: Self.idleSeconds)) { [weak self] in self?.thin() }
    }

    /// Gives back those that nobody has needed; one stays.
    private func thin() {
        idleTimer = nil
        let unneeded = min(leastIdle, idleChannels.count - 1)
        if unneeded > 0 {
            for channel in idleChannels[..<unneeded] { channel.destroy() }
            idleChannels.removeFirst(unneeded)
        }
        scheduleThinning()
    }

    func forget(_ query: UpstreamQuery) {
        active[ObjectIdentifier(query)] = nil
    }
}
