import EgressCore
import EgressPolicy
import Glibc
import NetPrimitives
public import Nftables
public import Reactor

/// Receives the datagrams of one address family that the kernel redirected, on a socket inside the sandbox's namespace.
///
///     datagram ─▶ flow known ───────────────────────────────────────────────▶ its socket outside
///                 new: where to? (conntrack) ─▶ judged ─▶ allowed: connected ─┘
///                                                         denied: recorded, ICMP to the program
///
/// Answers leave from the same socket, so that the kernel's redirect finds the way back. What the kernel let through is
/// no judgement: every flow is judged here.
public final class DatagramListener: EventSource {
    /// The sockets of one listener, made inside the sandbox's namespace.
    public struct Descriptors: Sendable {
        /// Bound over UDP to where the kernel redirects datagrams.
        public let datagrams: CInt
        /// Sends ICMP messages from there: ``Reactor/Sockets/icmpSocket(from:)``.
        public let icmp: CInt

        /// Sockets that exist.
        public init(datagrams: CInt, icmp: CInt) {
            self.datagrams = datagrams
            self.icmp = icmp
        }
    }

    /// How many datagrams are taken in one turn; other sandboxes wait for theirs.
    private static let batch = 64

    /// Room for what comes while the loop serves others: of the smallest datagrams, some thousand.
    private static let waitingBytes = 2 << 20

    private unowned let attachment: Attachment
    private let conntrack: Conntrack
    private let descriptors: Descriptors
    /// Where the socket is, as conntrack knows it.
    private let local: Endpoint
    private var isOpen = true

    /// Takes ownership of `descriptors`; on an error they stay the caller's. `conntrack` asks in the sandbox's namespace.
    public init(_ attachment: Attachment, conntrack: Conntrack, descriptors: Descriptors) throws(SystemError) {
        guard let local = Sockets.localEndpoint(descriptors.datagrams) else {
            throw SystemError(operation: "find out where the datagram relay listens", errno: EINVAL)
        }
        self.attachment = attachment
        self.conntrack = conntrack
        self.descriptors = descriptors
        self.local = local
        super.init()
        Sockets.setReceiveBuffer(descriptors.datagrams, bytes: Self.waitingBytes)
        try attachment.loop.register(self, descriptor: descriptors.datagrams, interest: .readable)
    }

    /// Closes the sockets: the kernel's redirect then leads nowhere, which refuses. Flows have to be ended before.
    public func stop() {
        guard isOpen else { return }
        isOpen = false
        attachment.loop.deregister(self)
        Sockets.close(descriptors.datagrams)
        Sockets.close(descriptors.icmp)
    }

    override public func handle(_ readiness: Readiness) {
        for _ in 0..<Self.batch where isOpen {
            switch flows.buffer.receive(descriptors.datagrams) {
            case .wouldBlock: return
            // An earlier answer could not be delivered; the error is taken with this call.
            case .failed: continue
            case .datagram(let source): take(from: source)
            }
        }
    }

    private var flows: DatagramFlows { attachment.datagrams }
}

// MARK: - What the program sends

extension DatagramListener {
    private func take(from source: Endpoint) {
        guard !attachment.isPaused else { return }
        if let flow = flows[source] {
            if confirm(flow) { return flow.send(flows.buffer) }
            // The kernel had forgotten the flow, and this one goes somewhere else from the same port.
            flow.end()
        }
        guard let flow = open(from: source) else { return }
        flow.send(flows.buffer)
    }

    /// Whether what comes from the flow's source still goes where the flow goes; asked when the kernel may have
    /// forgotten. When it has, and the program went on to the same destination, that is the same flow to us.
    func confirm(_ flow: DatagramFlow) -> Bool {
        if flow.isCertain { return true }
        guard let redirection = try? conntrack.redirection(from: flow.source, to: local) else { return false }
        return redirection.destination == flow.redirection.destination
    }

    private func open(from source: Endpoint) -> DatagramFlow? {
        guard flows.admitsAnother() else {
            attachment.tell(.flowRate)
            return nil
        }
        guard let redirection = try? conntrack.redirection(from: source, to: local),
            redirection.destination != local
        else { return nil }
        let destination = redirection.destination
        let judgement = attachment.judge.judgeOpaque(destination: destination, over: .udp)
        guard judgement.verdict.action == .allow else {
            refuse(judgement, source, destination)
            return nil
        }
        do {
            let flow = try DatagramFlow(self, attachment, from: source, redirection, judgement)
            record(.connectionAllowed, judgement, destination)
            return flow
        } catch is DatagramFlow.LeadsToNode {
            var refused = judgement
            refused.verdict = .deny(.guardRange)
            refuse(refused, source, destination)
            return nil
        } catch {
            // No refusal of ours, but the program must see it fail as it would have failed.
            var failed = judgement
            failed.verdict = Verdict(.allow, .upstreamFailed)
            record(.connectionClosed, failed, destination)
            tell(source, .hostUnreachable)
            return nil
        }
    }

    private func refuse(_ judgement: TunnelJudge.Judgement, _ source: Endpoint, _ destination: Endpoint) {
        record(.connectionDenied, judgement, destination)
        tell(source, .prohibited)
    }

    private func record(_ kind: AuditEvent.Kind, _ judgement: TunnelJudge.Judgement, _ destination: Endpoint) {
        var event = attachment.connectionEvent(
            kind,
            layer: .ip,
            verdict: judgement.verdict,
            name: judgement.name,
            endpoint: destination,
            over: .udp
        )
        if kind == .connectionClosed { event.layer = nil }
        attachment.record(event)
    }
}

// MARK: - What the program gets

extension DatagramListener {
    /// Passes on the datagram in the buffer. A full buffer loses it, as networks do.
    func answer(_ source: Endpoint) -> Bool {
        guard isOpen, case .bytes = flows.buffer.send(descriptors.datagrams, to: source) else { return false }
        return true
    }

    /// Tells the program at `source` that what it sent got nowhere.
    func tell(_ source: Endpoint, _ notice: UnreachableNotice) {
        guard isOpen else { return }
        let message = notice.message(from: source, to: local)
        _ = Sockets.sendDatagram(descriptors.icmp, message, to: Endpoint(source.address, 0))
    }
}
