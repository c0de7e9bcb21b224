import EgressCore
import EgressPolicy
import NetPrimitives
import Reactor

/// The connection to a server that has ended in order while the server had not acknowledged all that it was sent.
///
/// Were it closed, the kernel would go on sending the rest, as long as the server takes some of it every few minutes: as much
/// as a socket's buffer holds, to a server whose rule may be gone by then. So it is kept until everything has arrived, and is
/// judged again as a live one is.
final class LingeringServer: EventSource {
    private static let checkNanoseconds: UInt64 = 60_000_000_000
    /// The kernel gives up a socket that nobody has any more after about as long (tcp_orphan_retries, tcp(7)).
    private static let maximumStalledChecks = 4

    private unowned let attachment: Attachment
    private let endpoint: Endpoint
    private let admission: TunnelJudge.Admission
    private var descriptor: CInt
    private var timer: TimerToken?
    private var unsentAtLastCheck: Int
    private var stalledChecks = 0

    /// Takes ownership of `descriptor`, registered with no loop. The end of the stream is sent now, if it was not.
    init(_ descriptor: CInt, at endpoint: Endpoint, _ admission: TunnelJudge.Admission, of attachment: Attachment) {
        self.descriptor = descriptor
        self.endpoint = endpoint
        self.admission = admission
        self.attachment = attachment
        Sockets.end(descriptor)
        Sockets.setAbortive(descriptor, true)
        unsentAtLastCheck = Sockets.unsentBytes(descriptor)
    }

    deinit {
        precondition(descriptor < 0, "a lingering server was dropped with an open socket")
    }

    /// Begins to wait. What the policy does not allow, it is not waited for.
    func start() {
        guard isStillAllowed else { return abort() }
        do {
            // A hang-up is told of in any case, and again when the state of the connection changes: when the end of the stream
            // was acknowledged as well.
            try attachment.loop.register(self, descriptor: descriptor, interest: [], edgeTriggered: true)
        } catch {
            return abort()
        }
        armCheck()
    }

    override func handle(_ readiness: Readiness) {
        if readiness.contains(.error) { abort() } else if Sockets.unsentBytes(descriptor) == 0 { close() }
    }

    /// Judges again after a policy change.
    func reconsider() {
        if !isStillAllowed { abort() }
    }

    private var isStillAllowed: Bool {
        let verdict = attachment.judge.judgeAgain(
            name: admission.name,
            destination: endpoint,
            basis: admission.verdict.shownBasis,
            once: admission.verdict.isOnce
        )
        return verdict.action == .allow
    }

    private func armCheck() {
        let deadline = attachment.loop.now.advanced(byNanoseconds: Self.checkNanoseconds)
        timer = attachment.loop.schedule(at: deadline) { [weak self] in self?.check() }
    }

    private func check() {
        timer = nil
        let unsent = Sockets.unsentBytes(descriptor)
        stalledChecks = unsent == unsentAtLastCheck ? stalledChecks + 1 : 0
        unsentAtLastCheck = unsent
        if unsent == 0 { return close() }
        if stalledChecks >= Self.maximumStalledChecks { return abort() }
        armCheck()
    }

    /// What has not arrived never will.
    func abort() {
        if let descriptor = release() { Sockets.reset(descriptor) }
    }

    /// What has not arrived is the kernel's.
    func close() {
        if let descriptor = release() { Sockets.closeInOrder(descriptor) }
    }

    /// Gives it up for another process, as a relay that has ended and whose client is gone: to one of a version that knows
    /// nothing of lingering, it is one that ends.
    func handOver() -> HandedTunnel? {
        guard let client = try? Sockets.unconnectedSocket(), let server = release() else {
            abort()
            return nil
        }
        let relayed = HandedTunnel.Relayed(
            name: admission.name.map { "\($0)" },
            basis: admission.verdict.shownBasis,
            isOnce: admission.verdict.isOnce,
            bytesUpBefore: 0,
            bytesDownBefore: 0,
            relay: .ended
        )
        let acceptedAt = attachment.loop.now.nanoseconds
        let description = HandedTunnel.Description(endpoint: "\(endpoint)", acceptedAt: acceptedAt, relayed: relayed)
        return HandedTunnel(description, descriptors: [client, server])
    }

    private func release() -> CInt? {
        guard descriptor >= 0 else { return nil }
        attachment.loop.deregister(self)
        if let timer { attachment.loop.cancel(timer) }
        timer = nil
        defer { descriptor = -1 }
        attachment.lingering.remove(self)
        return descriptor
    }
}
