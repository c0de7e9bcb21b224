import EgressCore
import EgressPolicy
import Glibc
import NetPrimitives
import Nftables
import Reactor

/// Datagrams between one port of a program and one endpoint outside, judged when they began. Its socket is in this
/// process's namespace and connected: it sends to the judged address alone and hears nobody else.
final class DatagramFlow: EventSource {
    /// How many datagrams are taken in one turn.
    private static let batch = 32
    /// For how long the kernel is trusted at most to know the flow while nothing moves, in seconds.
    private static let maximumTrustSeconds: UInt64 = 25

    /// Where it comes from, as the listener sees it: each destination of a program's socket has one of its own.
    let source: Endpoint
    let redirection: Conntrack.Redirection
    /// Tells it from the sandbox's others.
    let number: UInt32
    let judgement: TunnelJudge.Judgement
    /// When something moved last, in either direction.
    private(set) var lastActivity: MonotonicTime
    /// The bytes that may wait in the socket; given back to the sandbox's budget at the end.
    let pendingBytes: Int

    unowned let attachment: Attachment
    private unowned let listener: DatagramListener
    let startedAt: MonotonicTime
    private var upstream: CInt
    private var isAnswered = false
    private(set) var bytesUp: UInt64 = 0
    private(set) var bytesDown: UInt64 = 0

    /// Where the program was sending is this machine.
    struct LeadsToNode: Error {}

    /// Connects to where the program was sending. The attachment holds the flow until it ends.
    /// - Throws: ``LeadsToNode``, or a `SystemError`.
    init(
        _ listener: DatagramListener,
        _ attachment: Attachment,
        from source: Endpoint,
        _ redirection: Conntrack.Redirection,
        _ judgement: TunnelJudge.Judgement
    ) throws {
        self.listener = listener
        self.attachment = attachment
        self.source = source
        self.redirection = redirection
        self.judgement = judgement
        number = attachment.datagrams.takeNumber()
        startedAt = attachment.loop.now
        lastActivity = startedAt
        pendingBytes = attachment.datagrams.makeRoom()
        upstream = try Sockets.udpSocket(
            connectedTo: redirection.destination,
            receiveBytes: pendingBytes,
            pass: attachment.loop.upstreamPass
        )
        super.init()
        do {
            if attachment.leadsToNode(upstream) { throw LeadsToNode() }
            try attachment.loop.register(self, descriptor: upstream, interest: .readable)
        } catch {
            Sockets.close(upstream)
            upstream = -1
            throw error
        }
        attachment.datagrams.add(self)
    }

    deinit {
        precondition(upstream < 0, "a datagram flow was dropped with an open socket")
    }

    override func handle(_ readiness: Readiness) {
        let buffer = attachment.datagrams.buffer
        for _ in 0..<Self.batch where upstream >= 0 {
            switch buffer.receiveConnected(upstream) {
            case .bytes(let count):
                // An answer to a flow that the kernel has forgotten would seem to come from our own socket.
                guard listener.confirm(self) else { continue }
                lastActivity = attachment.loop.now
                isAnswered = true
                if listener.answer(source) { bytesDown += UInt64(count) }
            case .wouldBlock, .ended:
                return
            case .failed(let code):
                tell(code)
            }
        }
    }

    /// Whether the kernel cannot have forgotten the flow: it keeps one for some time after each datagram.
    var isCertain: Bool {
        let trusted = min(UInt64(max(redirection.timeoutSeconds, 1)) - 1, Self.maximumTrustSeconds)
        return attachment.loop.now < lastActivity.advanced(bySeconds: trusted)
    }

    /// Whether it has not ended.
    var isLive: Bool { upstream >= 0 }

    /// Until when it lives if nothing moves.
    var idleDeadline: MonotonicTime {
        let limits = attachment.limits
        return lastActivity.advanced(
            bySeconds: isAnswered ? limits.answeredDatagramIdleSeconds : limits.datagramIdleSeconds
        )
    }

    /// Ends at once. `reason` is what the record says of it, if it is not the end of what let it in.
    func end(_ reason: Reason? = nil) {
        guard upstream >= 0 else { return }
        attachment.loop.deregister(self)
        Sockets.close(upstream)
        upstream = -1
        attachment.datagrams.remove(self)
        var event = attachment.connectionEvent(
            .connectionClosed,
            layer: .ip,
            verdict: reason.map { Verdict(.allow, $0) } ?? judgement.verdict,
            name: judgement.name,
            endpoint: redirection.destination,
            over: .udp
        )
        event.layer = nil
        event.bytesUp = bytesUp
        event.bytesDown = bytesDown
        event.durationMilliseconds = (attachment.loop.now.nanoseconds - startedAt.nanoseconds) / 1_000_000
        attachment.record(event)
    }

    /// Judges again after a policy change: what is no longer allowed ends before this returns.
    func reconsider() {
        if verdictNow().action == .deny { end() }
    }

    /// What the policy in force says of it.
    func verdictNow() -> Verdict {
        attachment.judge.judgeAgain(
            name: judgement.name,
            destination: redirection.destination,
            over: .udp,
            basis: judgement.verdict.shownBasis
        )
    }
}

// MARK: - Relaying

extension DatagramFlow {
    /// Sends the datagram in `buffer` outside. A full socket loses it, as networks do, and so does a pause that may have
    /// outlasted what let the flow in.
    func send(_ buffer: DatagramBuffer) {
        guard upstream >= 0, !attachment.loop.mustYield else { return }
        lastActivity = attachment.loop.now
        // A call may fail with the error of an earlier datagram; this one is tried once more then.
        for _ in 0..<2 {
            switch buffer.sendConnected(upstream) {
            case .bytes(let count):
                bytesUp += UInt64(count)
                return
            case .wouldBlock, .ended:
                return
            case .failed(let code):
                tell(code)
            }
        }
    }

    /// Passes an error on that the network answered with.
    private func tell(_ code: CInt) {
        switch code {
        case ECONNREFUSED: listener.tell(source, .portUnreachable)
        case EHOSTUNREACH, ENETUNREACH, EACCES, EPERM: listener.tell(source, .hostUnreachable)
        default: break
        }
    }
}
