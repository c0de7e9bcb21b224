internal import CAres
import Glibc
internal import NetPrimitives
internal import Reactor

/// One c-ares channel that carries one query to one server at a time.
///
/// c-ares sends, receives, looks at where the answer comes from and that it is one to the question, and asks again over
/// TCP when it was truncated. A channel has no socket while no query is under way, so every query leaves from a new,
/// random port; with several queries on one channel, this version of c-ares would share a socket among them, and could
/// not cancel one without the others.
///
/// Its callbacks only note what happened. What follows from it runs when the call into c-ares has returned, so that
/// anything may be done then, closing the resolver included.
final class AresChannel {
    /// Whether queries carry an OPT record (RFC 6891), and at most that and nothing behind it.
    let usesEDNS: Bool
    /// Whether no query goes out over UDP.
    private let usesTCPAlone: Bool
    let loop: EventLoop
    /// Whether the event at hand has brought a datagram.
    var hasReceivedDatagram = false
    /// The socket for TCP that was opened last.
    var stream: CInt = -1
    private var channel: ares_channel?
    /// One, or two when an answer over UDP was truncated.
    private var watches: [SocketWatch] = []
    private var timer: TimerToken?
    private var outcome: Result<[UInt8], UpstreamError>?
    private var completion: ((Result<[UInt8], UpstreamError>) -> Void)?
    private var isSending = false
    /// The server that the channel has, and whether the last query to it was answered by the first datagram.
    private var server: Endpoint?
    private var wasAnsweredAtOnce = false
    /// Whether c-ares went on with the query after the first event: over TCP, without EDNS, or to wait further.
    private var hasGoneOn = false

    init(
        loop: EventLoop,
        timeoutMilliseconds: Int,
        usesEDNS: Bool,
        usesTCPAlone: Bool
    ) throws(UpstreamError) {
        self.loop = loop
        self.usesEDNS = usesEDNS
        self.usesTCPAlone = usesTCPAlone
        let status = Self.libraryStatus == ARES_SUCCESS ? open(timeoutMilliseconds) : Self.libraryStatus
        if status != ARES_SUCCESS { throw UpstreamError(status: status, whileSending: false) }
    }

    deinit {
        precondition(channel == nil, "an AresChannel must be destroyed")
    }

    /// Once per process; it is not thread-safe, a static constant is.
    private static let libraryStatus = ares_library_init(ARES_LIB_INIT_ALL)

    private func open(_ timeoutMilliseconds: Int) -> CInt {
        var options = ares_options()
        // Every reply is given out, failures too: the resolver decides whether to ask another server. Without the EDNS
        // flag, c-ares takes every datagram of more than 512 bytes for truncated.
        options.flags = ARES_FLAG_NOCHECKRESP | ARES_FLAG_NOSEARCH | ARES_FLAG_NOALIASES
        if usesEDNS { options.flags |= ARES_FLAG_EDNS }
        if usesTCPAlone { options.flags |= ARES_FLAG_USEVC }
        options.ednspsz = 4_096
        options.timeout = CInt(clamping: timeoutMilliseconds)
        options.tries = 1
        options.ndots = 1
        options.sock_state_cb = { context, descriptor, readable, writable in
            AresChannel.at(context).socketChanged(descriptor, isReading: readable != 0, isWriting: writable != 0)
        }
        options.sock_state_cb_data = Unmanaged.passUnretained(self).toOpaque()
        // All of these are given so that c-ares reads no configuration file; "b" is "DNS only".
        let mask =
            ARES_OPT_FLAGS | ARES_OPT_EDNSPSZ | ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_NDOTS
            | ARES_OPT_SOCK_STATE_CB | ARES_OPT_SERVERS | ARES_OPT_DOMAINS | ARES_OPT_SORTLIST | ARES_OPT_LOOKUPS
            | ARES_OPT_NOROTATE
        var lookups: [CChar] = [CChar(UInt8(ascii: "b")), 0]
        let status = lookups.withUnsafeMutableBufferPointer { buffer in
            options.lookups = buffer.baseAddress
            return ares_init_options(&channel, &options, mask)
        }
        if status == ARES_SUCCESS {
            ares_set_socket_functions(channel, Self.socketFunctions, Unmanaged.passUnretained(self).toOpaque())
        }
        return status
    }

    static func at(_ context: UnsafeMutableRawPointer?) -> AresChannel {
        Unmanaged<AresChannel>.fromOpaque(context!).takeUnretainedValue()
    }
}

// MARK: - Asking

extension AresChannel {
    /// Sends `query` to `server`. `completion` is called once, never from within this call, unless ``cancel()`` comes
    /// before.
    func ask(
        _ query: [UInt8],
        of server: Endpoint,
        completion: @escaping (Result<[UInt8], UpstreamError>) -> Void
    ) {
        precondition(self.completion == nil, "an AresChannel carries one query at a time")
        self.completion = completion
        isSending = true
        hasGoneOn = false
        let status = setServer(server)
        if status == ARES_SUCCESS {
            let context = Unmanaged.passUnretained(self).toOpaque()
            ares_send(
                channel,
                query,
                CInt(clamping: query.count),
                { context, status, _, bytes, count in AresChannel.at(context).ended(status, bytes, count) },
                context
            )
        } else {
            ended(status, nil, 0)
        }
        isSending = false
        if outcome == nil {
            arm()
        } else {
            timer = loop.schedule(at: loop.now) { self.settle() }
        }
    }

    /// Gives the query up; its completion is not called.
    func cancel() {
        completion = nil
        if let channel { ares_cancel(channel) }
        outcome = nil
        disarm()
    }

    /// Gives the query up and the channel back to c-ares. Must be the last call.
    func destroy() {
        completion = nil
        disarm()
        if let channel { ares_destroy(channel) }
        channel = nil
        outcome = nil
    }

    /// Whether the channel is as new. When a server takes an OPT record for an error in the format, c-ares asks again
    /// without it and does without EDNS on that channel from then on. To have that looked up takes a copy of everything
    /// that the channel was made with.
    var isReusable: Bool {
        guard usesEDNS, !wasAnsweredAtOnce else { return true }
        var options = ares_options()
        var mask: CInt = 0
        guard ares_save_options(channel, &options, &mask) == ARES_SUCCESS else { return false }
        defer { ares_destroy_options(&options) }
        return options.flags & ARES_FLAG_EDNS != 0
    }

    private func setServer(_ server: Endpoint) -> CInt {
        defer {
            self.server = server
            wasAnsweredAtOnce = false
        }
        // Setting them makes c-ares begin with them anew, which matters after something went wrong.
        if wasAnsweredAtOnce, self.server == server { return ARES_SUCCESS }
        var node = ares_addr_port_node()
        node.family = server.address.family == .v4 ? AF_INET : AF_INET6
        withUnsafeMutableBytes(of: &node.addr) { $0.copyBytes(from: server.address.networkBytes) }
        node.udp_port = CInt(server.port)
        node.tcp_port = CInt(server.port)
        return ares_set_servers_ports(channel, &node)
    }

    private func ended(_ status: CInt, _ bytes: UnsafeMutablePointer<UInt8>?, _ count: CInt) {
        if status == ARES_SUCCESS, let bytes, count > 0 {
            outcome = .success(Array(UnsafeBufferPointer(start: bytes, count: Int(count))))
        } else {
            outcome = .failure(UpstreamError(status: status, whileSending: isSending))
        }
    }
}

// MARK: - Events

extension AresChannel {
    private func socketChanged(_ descriptor: CInt, isReading: Bool, isWriting: Bool) {
        guard isReading || isWriting else {
            // Called before c-ares closes the socket.
            guard let index = watches.firstIndex(where: { $0.descriptor == descriptor }) else { return }
            let watch = watches.remove(at: index)
            watch.isStream ? loop.deregister(watch) : loop.forget(watch)
            return
        }
        var interest: Interest = []
        if isReading { interest.insert(.readable) }
        if isWriting { interest.insert(.writable) }
        if let watch = watches.first(where: { $0.descriptor == descriptor }) {
            loop.update(watch, interest: interest)
        } else {
            let watch = SocketWatch(self, descriptor, isStream: descriptor == stream)
            // When the kernel has no room for one more, the query ends by its timeout.
            guard
                (try? loop.register(watch, descriptor: descriptor, interest: interest, edgeTriggered: !watch.isStream))
                    != nil
            else { return }
            watches.append(watch)
        }
    }

    fileprivate func process(reading: CInt, writing: CInt) {
        guard let channel else { return }
        hasReceivedDatagram = false
        ares_process_fd(channel, reading, writing)
        // What came was no answer; the kernel tells only once of what came with it.
        if hasReceivedDatagram, let watch = watches.first(where: { $0.descriptor == reading }), !watch.isStream {
            loop.runSoon(watch)
        }
        settle()
    }

    /// Goes on when the call into c-ares is over.
    private func settle() {
        guard let outcome else {
            hasGoneOn = true
            return arm()
        }
        if case .success = outcome { wasAnsweredAtOnce = !hasGoneOn }
        self.outcome = nil
        disarm()
        let completion = completion
        self.completion = nil
        completion?(outcome)
    }

    /// c-ares tells how long it wants to wait; a query that goes on over TCP has its time anew.
    private func arm() {
        disarm()
        var time = timeval()
        guard let channel, ares_timeout(channel, nil, &time) != nil else { return }
        let nanoseconds = UInt64(max(time.tv_sec, 0)) * 1_000_000_000 + UInt64(max(time.tv_usec, 0)) * 1_000
        timer = loop.schedule(at: loop.now.advanced(byNanoseconds: nanoseconds)) {
            self.process(reading: ARES_SOCKET_BAD, writing: ARES_SOCKET_BAD)
        }
    }

    private func disarm() {
        if let timer { loop.cancel(timer) }
        timer = nil
    }
}

/// Tells a channel of one of its sockets.
private final class SocketWatch: EventSource {
    /// Of a socket for datagrams the kernel tells what is new, and takes it off its list when it is closed: one system
    /// call a query less. c-ares reads streams by the piece, and wants to hear of the rest.
    let isStream: Bool
    private unowned let channel: AresChannel
    let descriptor: CInt

    init(_ channel: AresChannel, _ descriptor: CInt, isStream: Bool) {
        self.channel = channel
        self.descriptor = descriptor
        self.isStream = isStream
    }

    override func handle(_ readiness: Readiness) {
        // An error is found by reading. Nothing at all is said of what may have come with a datagram.
        let isReading = readiness.isEmpty || !readiness.isDisjoint(with: [.readable, .hangup, .error, .peerEnded])
        channel.process(
            reading: isReading ? descriptor : ARES_SOCKET_BAD,
            writing: readiness.contains(.writable) ? descriptor : ARES_SOCKET_BAD
        )
    }
}
