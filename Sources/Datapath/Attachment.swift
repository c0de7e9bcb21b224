public import EgressCore
public import EgressPolicy
public import NetPrimitives
public import Nftables
public import Reactor

/// One sandbox network under enforcement: the policy in force, the pins, the live tunnels, and what everything on its
/// way out needs of it. Confined to one event loop: no locks, and a noisy sandbox is held to one core.
///
/// Nothing here assumes that there is one sandbox, or that this process lives in the sandbox's namespace: the
/// listeners and the netlink socket were opened there, upstream sockets are opened here.
public final class Attachment {
    /// Bounds on what one sandbox can take of the node.
    public struct Limits: Sendable {
        /// The most connections at once, tunnels and those still being judged together.
        public var maximumConnections = 4_096
        /// How long a connection may take to show what it is, in milliseconds.
        public var peekMilliseconds: UInt64 = 10_000
        /// How long a client may be silent before its protocol is taken to be one where the server speaks first, in
        /// milliseconds. Not on ports 80 and 443.
        public var serverFirstMilliseconds: UInt64 = 300
        /// How long connecting may take, in milliseconds.
        public var connectMilliseconds: UInt64 = 15_000
        /// How long a tunnel may be silent in both directions, in seconds.
        public var idleSeconds: UInt64 = 2 * 3_600

        /// The defaults.
        public init() {}
    }

    /// The sandbox's name in records.
    public let id: String
    /// The event loop that everything here is confined to.
    public let loop: EventLoop
    /// Bounds on what the sandbox can take of the node.
    public let limits: Limits
    /// The policy in force.
    public private(set) var policy: CompiledPolicy
    /// Whether everything is denied until resumed.
    public private(set) var isPaused = false

    let pinner: Pinner
    let kernel: SandboxTable
    /// Resolves a name through the sandbox's own resolver: judged, sanitised, pinned. Set when the resolver exists.
    var resolve: (DomainName, @escaping (Result<[IPAddress], ResolutionFailure>) -> Void) -> Void = { _, completion in
        completion(.failure(.upstreamFailed))
    }

    private let record: (AuditEvent) -> Void
    private var tunnels: [ObjectIdentifier: Tunnel] = [:]
    private var expiryTimer: TimerToken?
    private var sweepTimer: TimerToken?

    /// An attachment whose table has its door closed. Opens what `policy` may allow; nothing flows before listeners run.
    public init(
        id: String, loop: EventLoop, kernel: SandboxTable, policy: CompiledPolicy, limits: Limits = Limits(),
        record: @escaping (AuditEvent) -> Void
    ) throws {
        self.id = id
        self.loop = loop
        self.limits = limits
        self.policy = policy
        self.kernel = kernel
        self.record = record
        self.pinner = Pinner(kernel: kernel, loop: loop)
        try kernel.setPossible(policy.possibleAddresses(at: loop.wallTime()))
        armExpiry()
        armSweep()
    }

    /// Closes every tunnel at once and stops the timers. The kernel's table stays.
    public func stop() {
        if let expiryTimer { loop.cancel(expiryTimer) }
        if let sweepTimer { loop.cancel(sweepTimer) }
        expiryTimer = nil
        sweepTimer = nil
        tunnels.values.forEach { $0.abort() }
    }
}

/// Why a name gave no address that may be used.
public enum ResolutionFailure: Error, Hashable, Sendable {
    /// The policy refuses the name or every address it has.
    case denied(Verdict)
    /// The name has no address.
    case noAddress
    /// No upstream resolver answered, or the kernel would not pin the answer.
    case upstreamFailed
}

// MARK: - Judging and recording

extension Attachment {
    var judge: TunnelJudge {
        TunnelJudge(policy: policy, pins: pinner.table, now: loop.now, wallTime: loop.wallTime())
    }

    /// An event of this sandbox, now, under the policy in force.
    func event(_ kind: AuditEvent.Kind) -> AuditEvent {
        var event = AuditEvent(kind, time: loop.wallTime(), sandbox: id)
        event.policyRevision = policy.generation
        return event
    }

    func record(_ event: AuditEvent) {
        record(event)
    }
}

// MARK: - Tunnels

extension Attachment {
    /// Whether another connection may be taken.
    var hasRoomForTunnel: Bool { tunnels.count < limits.maximumConnections }

    func add(_ tunnel: Tunnel) {
        tunnels[ObjectIdentifier(tunnel)] = tunnel
    }

    func remove(_ tunnel: Tunnel) {
        tunnels[ObjectIdentifier(tunnel)] = nil
    }
}

// MARK: - Revocation

extension Attachment {
    /// Puts `newPolicy` in force: what it no longer allows is closed and removed before this returns. When the kernel
    /// refuses, the old policy stays in force and the error is thrown.
    public func replacePolicy(with newPolicy: CompiledPolicy) throws {
        let previous = policy
        policy = newPolicy
        do {
            try enforceAgain()
        } catch {
            policy = previous
            try? kernel.setPossible(previous.possibleAddresses(at: loop.wallTime()))
            throw error
        }
        record(event(.policyChanged))
    }

    /// Judges every pin and live tunnel again.
    private func enforceAgain() throws {
        let wallTime = loop.wallTime()
        try kernel.setPossible(policy.possibleAddresses(at: wallTime))
        try pinner.revoke(notAllowedBy: policy, at: wallTime)
        for tunnel in Array(tunnels.values) { tunnel.reconsider() }
        armExpiry()
    }

    /// Denies everything, keeps policy and pins. Live tunnels end.
    public func pause() throws {
        isPaused = true
        tunnels.values.forEach { $0.abort() }
        try kernel.pause()
        record(event(.sandboxPaused))
    }

    /// Puts the policy in force again.
    public func resume() throws {
        try kernel.resume()
        isPaused = false
        record(event(.sandboxResumed))
    }

    /// A rule's expiry is a policy change.
    private func armExpiry() {
        if let expiryTimer { loop.cancel(expiryTimer) }
        expiryTimer = nil
        let wallTime = loop.wallTime()
        guard let next = policy.nextExpiry(after: wallTime) else { return }
        // The wall clock may be set: look again at least every minute.
        let microseconds = min(max(next.microseconds - wallTime.microseconds, 0), 60_000_000)
        let deadline = loop.now.advanced(byNanoseconds: UInt64(microseconds) * 1_000 + 1_000_000)
        expiryTimer = loop.schedule(at: deadline) { [weak self] in self?.expireRules() }
    }

    private func expireRules() {
        expiryTimer = nil
        do {
            try enforceAgain()
        } catch {
            // The kernel would not narrow its sets; `decide` still does, and what is live has to end.
            tunnels.values.forEach { $0.abort() }
            armExpiry()
        }
    }

    private func armSweep() {
        sweepTimer = loop.schedule(at: loop.now.advanced(bySeconds: 60)) { [weak self] in
            self?.pinner.removeExpired()
            self?.armSweep()
        }
    }
}
