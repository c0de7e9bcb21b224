import EgressCore
import EgressPolicy
import NetPrimitives
import Reactor
import WireFormat

/// One TCP connection of a sandbox, from accept to its end.
///
///     accepted ─▶ [CONNECT head or SOCKS] ─▶ first bytes ─▶ judged ─▶ dialled ─▶ relayed
///                                       │  │
///                                       │  └─ HTTP/1 ─▶ HTTPForwarder: every request judged
///                                       └─ silence ──▶ judged as opaque, dialled; the server may speak,
///                                                      the client's first bytes are still judged
///
/// Until the judgement everything is peeked at, nothing taken: what the server gets is what was judged.
final class Tunnel: KeepingSource {
    /// How the connection came to us.
    enum Entry {
        /// Redirected by the kernel, on its way to this destination.
        case transparent(Endpoint)
        /// A client of the explicit proxy.
        case proxy
    }

    enum Phase {
        /// The explicit proxy's client has not yet said where to.
        case proxyHead
        /// What the client sends first decides.
        case firstBytes
        /// Somebody is being asked, a name resolved or a server dialled; the client waits.
        case connecting
        /// Judged as opaque and connected; the server may speak while the client is silent.
        case serverFirst(ServerFirstPump)
        /// Every request is judged on its own.
        case forwarding(HTTPForwarder)
        /// Judged and connected.
        case relaying(Relay)
        /// Refused; the refusal is on its way to the client.
        case refusing(Farewell)
        case closed
    }

    // In this order there are hardly any gaps, which would take memory as long as the tunnel lives: small ones stand together,
    // behind one whose size is no multiple of eight.
    unowned let attachment: Attachment
    /// Where the attachment keeps it; the table's alone.
    var place = TunnelTable.Place()
    let acceptedAt: MonotonicTime
    /// Where the connection goes, as far as it is known.
    var course: Course
    /// Whether ``downstream`` may have another receive low-water mark than 1.
    var hasLowWater = false
    /// Whether a CONNECT was answered: what follows is the tunnel.
    var hasAnsweredProxy = false
    var hasTriedOtherAddresses = false
    /// Whether it is a client of the explicit proxy, rather than redirected.
    var isProxied: Bool
    /// What it was let in by; `nil` while it is not judged.
    var admission: TunnelJudge.Admission?
    var phase: Phase
    /// The client's socket; ours to close until a later phase takes it over, -1 then.
    var downstream: CInt
    /// The server's socket when it was dialled before the first bytes came, else -1.
    var upstream: CInt = -1
    private var timer: TimerToken?
    /// By what it was judged when it was let in.
    var layer: AuditEvent.Layer?
    /// `nil` when it was forgotten, or nobody has asked for it yet.
    private var keptBeginning: TunnelBeginning?
    /// Bytes that passed before the relay took over: what was passed on of a first line, what the server said first.
    var bytesBefore: (up: UInt64, down: UInt64) = (0, 0)
    /// What a client of the explicit proxy speaks.
    var dialect = ProxyDialect.http

    /// Takes ownership of `downstream`, a non-blocking connected socket. `acceptedAt` is now, unless another process
    /// accepted it.
    init(_ attachment: Attachment, downstream: CInt, entry: Entry, acceptedAt: MonotonicTime? = nil) {
        self.attachment = attachment
        self.acceptedAt = acceptedAt ?? attachment.loop.now
        self.downstream = downstream
        switch entry {
        case .transparent(let destination):
            self.isProxied = false
            self.course = .address(destination)
            self.phase = .firstBytes
        case .proxy:
            self.isProxied = true
            self.course = .unknown
            self.phase = .proxyHead
        }
    }

    deinit {
        precondition(downstream < 0 && upstream < 0, "a tunnel was dropped with open sockets")
    }

    override func handle(_ readiness: Readiness) {
        told.formUnion(readiness)
        switch phase {
        case .proxyHead: lookForProxyRequest()
        case .firstBytes, .serverFirst: lookAtFirstBytes()
        case .connecting:
            // Nothing is read while the client waits; but one that has gone need not be waited for.
            if !readiness.isDisjoint(with: [.hangup, .error]) { abort() }
        case .forwarding, .relaying, .refusing, .closed: break
        }
    }
}

/// Where a connection goes, as far as it is known.
enum Course {
    /// The explicit proxy's client has not said.
    case unknown
    /// A CONNECT with a name that is not resolved yet, or to no address.
    case authority(DomainName, port: UInt16)
    /// The original destination, or the address that a CONNECT named.
    case address(Endpoint)
    /// A CONNECT with a name, and the endpoint that was dialled for it.
    case name(DomainName, Endpoint)

    /// The address and port, when known.
    var endpoint: Endpoint? {
        switch self {
        case .unknown, .authority: nil
        case .address(let endpoint), .name(_, let endpoint): endpoint
        }
    }

    /// The port, when known.
    var port: UInt16? {
        if case .authority(_, let port) = self { port } else { endpoint?.port }
    }

    /// Puts the endpoint that was dialled in the place of the one that was asked for.
    mutating func setEndpoint(_ endpoint: Endpoint) {
        switch self {
        case .unknown, .authority: break
        case .address: self = .address(endpoint)
        case .name(let name, _): self = .name(name, endpoint)
        }
    }

    /// Browsers' ports: nothing but TLS and HTTP passes there.
    var isWebPort: Bool { port == 80 || port == 443 }
}

// MARK: - Life

extension Tunnel {
    /// Begins. The attachment holds the tunnel until it is closed.
    func start() {
        attachment.add(self)
        do {
            let interest: Interest = [.readable, .urgent]
            try attachment.loop.register(self, descriptor: downstream, interest: interest, edgeTriggered: true)
        } catch {
            abort()
            return
        }
        // What waits to be read is told by the registration's first event.
        if case .firstBytes = phase { awaitFirstBytes() } else { awaitProxyRequest() }
    }

    /// Ends at once, whatever the phase; both peers see a reset.
    func abort() {
        let previous = phase
        phase = .closed
        disarm()
        cancelConnector()
        switch previous {
        case .relaying(let relay): relay.abort()
        case .forwarding(let forwarder): forwarder.abort()
        case .serverFirst(let pump): stop(pump)
        case .refusing(let farewell): farewell.abort()
        case .proxyHead, .firstBytes, .connecting, .closed: break
        }
        if let descriptor = releaseDownstream() { Sockets.reset(descriptor) }
        if let descriptor = releaseUpstream() { Sockets.reset(descriptor) }
        attachment.remove(self)
    }

    /// Judges again after a policy change: what is no longer allowed ends before this returns.
    func reconsider() {
        switch phase {
        case .firstBytes where upstream < 0:
            break
        case .relaying, .serverFirst, .firstBytes:
            guard let endpoint = course.endpoint, isStillAllowed(at: endpoint) else { return abort() }
        case .forwarding(let forwarder):
            forwarder.reconsider()
        case .connecting:
            // While a name is resolved or somebody asked nothing is judged; what comes of it will be, by the policy then in force.
            guard beginning.connector != nil else { return }
            if !beginning.dialled.allSatisfy({ isStillAllowed(at: $0) }) { abort() }
        case .proxyHead, .refusing, .closed:
            break
        }
    }

    /// Ends the connection of a server that spoke first, and records it.
    func stop(_ pump: ServerFirstPump) {
        pump.stop()
        recordClosed(bytesUp: 0, bytesDown: pump.delivered, verdict: admission?.verdict)
    }

    private func isStillAllowed(at endpoint: Endpoint) -> Bool {
        verdictNow(at: endpoint)?.action == .allow
    }

    /// What the policy in force says of a connection to `endpoint`; `nil` while it is not judged.
    func verdictNow(at endpoint: Endpoint) -> Verdict? {
        guard let admission else { return nil }
        return attachment.judge.judgeAgain(
            name: admission.name,
            destination: endpoint,
            basis: admission.verdict.shownBasis,
            once: admission.verdict.isOnce
        )
    }

    /// The client's socket, registered with no loop; `nil` when a later phase has it.
    func releaseDownstream() -> CInt? {
        guard downstream >= 0 else { return nil }
        attachment.loop.deregister(self)
        defer { downstream = -1 }
        return downstream
    }

    func releaseUpstream() -> CInt? {
        guard upstream >= 0 else { return nil }
        if let watch = keptBeginning?.upstreamWatch { attachment.loop.deregister(watch) }
        keptBeginning?.upstreamWatch = nil
        defer { upstream = -1 }
        return upstream
    }

    /// Takes a server's socket, which stays registered with the loop until somebody wants to know of it.
    func keepUpstream(_ socket: WatchedSocket) -> CInt {
        beginning.upstreamWatch = socket.source
        upstream = socket.descriptor
        return upstream
    }

    /// Both sockets, registered as they are; `nil` when one of them is not.
    func releaseWatched() -> (downstream: CInt, upstream: CInt, watch: KeepingSource)? {
        guard downstream >= 0, upstream >= 0, let watch = keptBeginning?.upstreamWatch else { return nil }
        keptBeginning?.upstreamWatch = nil
        defer { (downstream, upstream) = (-1, -1) }
        return (downstream, upstream, watch)
    }

    /// What is known only until it is relayed; once forgotten it is as it was before the first byte.
    var beginning: TunnelBeginning {
        if let keptBeginning { return keptBeginning }
        let made = TunnelBeginning(at: attachment.loop.now)
        keptBeginning = made
        return made
    }

    /// From now on it is relayed.
    func forgetBeginning() { keptBeginning = nil }

    /// Whatever is dialled, nobody waits for it any more.
    func cancelConnector() {
        keptBeginning?.connector?.cancel()
        keptBeginning?.connector = nil
    }

    /// Has the client's socket reported readable only when `count` bytes wait.
    func setLowWater(_ count: Int) {
        guard count != 1 || hasLowWater else { return }
        hasLowWater = count != 1
        Sockets.setReceiveLowWater(downstream, count)
    }

    func arm(afterMilliseconds milliseconds: UInt64, _ action: @escaping (Tunnel) -> Void) {
        disarm()
        let deadline = attachment.loop.now.advanced(byNanoseconds: milliseconds * 1_000_000)
        // A weak reference would take memory of its own as long as the tunnel lives; every way to its end disarms.
        timer = attachment.loop.schedule(at: deadline) { [self] in
            timer = nil
            action(self)
        }
    }

    func disarm() {
        if let timer { attachment.loop.cancel(timer) }
        timer = nil
    }
}
