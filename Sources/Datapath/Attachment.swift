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
        /// The most datagram flows at once; beyond, the one that has been silent longest ends.
        public var maximumDatagramFlows = 1_024
        /// How many datagram flows may begin in a second, twice that many at once; others are lost. Also what the
        /// sandbox can make the node's own connection tracking remember.
        public var datagramFlowsPerSecond: UInt64 = 200
        /// How long a datagram flow may be silent while nothing was answered, in seconds.
        public var datagramIdleSeconds: UInt64 = 60
        /// How long a datagram flow may be silent after something was answered, in seconds. The kernel may
        /// have forgotten it before (30 or 120 seconds by default); then the program is the one who can take it up again.
        public var answeredDatagramIdleSeconds: UInt64 = 180
        /// How many bytes of datagrams may wait in the sockets of all flows together; at least 16 KiB for each.
        public var pendingDatagramBytes = 32 << 20
        /// Bounds on what its resolver takes.
        public var queries = DNSResolver.Limits()
        /// Bounds on what is pinned, and for how long.
        public var pins = PinTable.Limits()
        /// Bounds on the answers that are kept.
        public var cache = DNSCache.Limits()
        /// Bounds on new names below a wildcard.
        public var budget = DNSBudget.Limits()
        /// Bounds on what one answer may hold.
        public var answers = DNSAnswerSanitizer.Limits()
        /// Bounds on what somebody is asked, where somebody is.
        public var questions = Questions.Limits()
        /// How much of what the kernel refuses has a record of its own.
        public var refusals = RefusalLimit()

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

    /// That somebody else changed the namespace's rules, since when everything is denied for good.
    public private(set) var rulesetChange: RulesetChange?
    /// Called once, when ``rulesetChange`` is set.
    public var onRulesetChange: (RulesetChange) -> Void = { _ in }

    /// Called when the policy's set-up phase has come to its end by time, its rules being gone; at once if that was before.
    public var onSetupEnd: () -> Void = {} {
        didSet { if hasSetupEnded { onSetupEnd() } }
    }
    private var hasSetupEnded = false
    /// Where somebody is asked about what no rule speaks of; `nil` where nobody is.
    public private(set) var desk: QuestionDesk?

    let pinner: Pinner
    /// The live datagram flows.
    let datagrams: DatagramFlows
    let kernel: SandboxTable
    /// Where it is counted how long things took.
    let latencies: LatencyMeter
    /// Resolves a name through the sandbox's own resolver: judged, sanitised, pinned. Set when the resolver exists.
    var resolve: (DomainName, @escaping (Result<[IPAddress], ResolutionFailure>) -> Void) -> Void = { _, completion in
        completion(.failure(.upstreamFailed))
    }
    /// Gives up what is being looked up for names that are not allowed any more. Set when the resolver exists.
    var reconsiderLookups: () -> Void = {}

    private let sink: (AuditEvent) -> Void
    private(set) var tunnels = TunnelTable()
    /// Servers of connections that are over, which have not taken everything yet.
    let lingering = LingeringServers()
    /// Bytes of connections and datagram flows that have ended, from the sandbox and to it.
    private(set) var endedBytes: (up: UInt64, down: UInt64) = (0, 0)
    /// What the kernel lets through to the proxy whatever was resolved.
    private var possible: [ClosedRange<IPAddress>] = []
    private var expiryTimer: TimerToken?
    /// Limits that bit since they were last told of, with how often.
    private var untoldNotices: [LimitNotice: UInt64] = [:]
    private var noticeTimer: TimerToken?

    /// An attachment whose table has its door closed. Opens what `policy` may allow; nothing flows before listeners run.
    /// `pins` are what a process before this one left in the table. `latencies` may count for other attachments of the loop
    /// as well. With `isAsking`, somebody is asked about what no rule speaks of.
    public init(
        id: String,
        loop: EventLoop,
        kernel: SandboxTable,
        policy: CompiledPolicy,
        pins: [KernelPin] = [],
        limits: Limits = Limits(),
        isAsking: Bool = false,
        latencies: LatencyMeter = LatencyMeter(),
        record: @escaping (AuditEvent) -> Void
    ) throws {
        self.id = id
        self.loop = loop
        self.limits = limits
        self.policy = policy
        self.kernel = kernel
        self.sink = record
        self.latencies = latencies
        self.pinner = Pinner(kernel: kernel, loop: loop, latencies: latencies, limits: limits.pins)
        self.datagrams = DatagramFlows(loop: loop, limits: limits)
        if isAsking { desk = QuestionDesk(self) }
        _ = endSetupByTime()
        try openKernel(for: self.policy)
        if !pins.isEmpty {
            try pinner.restore(pins)
            try pinner.revoke(notAllowedBy: self.policy, at: loop.wallTime())
        }
        armExpiry()
    }

    /// Closes every tunnel and datagram flow at once and stops the timers. The kernel's table stays.
    public func stop() {
        if let expiryTimer { loop.cancel(expiryTimer) }
        expiryTimer = nil
        pinner.stop()
        desk?.stop()
        endEverything()
        tellNotices()
        if let noticeTimer { loop.cancel(noticeTimer) }
        noticeTimer = nil
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
    /// A bound on what the sandbox may take.
    case limited(Reason)
}

// MARK: - Judging and recording

extension Attachment {
    var judge: TunnelJudge {
        TunnelJudge(policy: policy, pins: pinner.table, now: loop.now, wallTime: loop.wallTime())
    }

    /// Whether the kernel by itself refuses every connection and datagram to `address` while nothing is resolved; for
    /// the self-test.
    public func refuses(_ address: IPAddress) -> Bool {
        // What may be looked at over UDP alone is part of it.
        !pinner.table.isPinned(address, at: loop.now) && !possible.contains { $0.contains(address) }
    }

    /// Whether a connected socket leads to this machine itself, at an address that was not known to be its own when the
    /// connection was judged: one that is new, or that only a route makes local. Nothing has been sent through it yet.
    func leadsToNode(_ descriptor: CInt) -> Bool {
        leadsToNode(descriptor, Sockets.peerEndpoint(descriptor))
    }

    /// The same for a socket whose `peer` is known.
    func leadsToNode(_ descriptor: CInt, _ peer: Endpoint?) -> Bool {
        // Nobody but the machine itself answers from the address that it was asked from.
        guard !policy.guards.nodeAddresses.isEmpty, let peer = peer?.address,
            Sockets.localEndpoint(descriptor)?.address == peer
        else { return false }
        return !policy.guards.nodeAddresses.contains(peer)
    }

    /// An event of this sandbox, now, under the policy in force.
    func event(_ kind: AuditEvent.Kind) -> AuditEvent {
        var event = AuditEvent(kind, time: loop.wallTime(), sandbox: id)
        event.policyRevision = policy.generation
        return event
    }

    func record(_ event: AuditEvent) {
        endedBytes.up &+= event.bytesUp ?? 0
        endedBytes.down &+= event.bytesDown ?? 0
        sink(event)
    }

    /// Records that a limit bit: the first time at once, then once a second with how often. So a flood makes no flood of
    /// records, and their counts add up to what was refused.
    func tell(_ notice: LimitNotice, times count: UInt64 = 1) {
        untoldNotices[notice, default: 0] += count
        if noticeTimer == nil { tellNotices() }
    }

    private func tellNotices() {
        noticeTimer = nil
        guard !untoldNotices.isEmpty else { return }
        for (notice, count) in untoldNotices { record(notice.event(count, event(notice.kind))) }
        untoldNotices = [:]
        noticeTimer = loop.schedule(at: loop.now.advanced(bySeconds: 1)) { [weak self] in self?.tellNotices() }
    }

    /// Records something of the sandbox's life.
    public func record(_ kind: AuditEvent.Kind, detail: String? = nil) {
        var event = event(kind)
        event.detail = detail
        sink(event)
    }
}

// MARK: - Tunnels

extension Attachment {
    /// Whether another connection may be taken.
    var hasRoomForTunnel: Bool { tunnels.count + lingering.count < limits.maximumConnections }

    func add(_ tunnel: Tunnel) {
        tunnels.add(tunnel)
    }

    func remove(_ tunnel: Tunnel) {
        tunnels.remove(tunnel)
    }

    /// Closes the connection to a server that has ended in order, when the server has everything: to close it now would leave
    /// the rest to the kernel, whatever becomes of the policy. It was let in to `endpoint` by `admission`.
    func letGo(_ descriptor: CInt, at endpoint: Endpoint?, _ admission: TunnelJudge.Admission?) {
        guard Sockets.unsentBytes(descriptor) > 0 else { return Sockets.closeInOrder(descriptor) }
        guard let endpoint, let admission, lingering.count < limits.maximumConnections else {
            return Sockets.reset(descriptor)
        }
        lingering.add(LingeringServer(descriptor, at: endpoint, admission, of: self))
    }

    /// Leaves to the kernel what servers have not taken of connections that are over. For an end at which nothing is taken
    /// back.
    public func leaveLingering() {
        lingering.all.forEach { $0.close() }
    }
}

// MARK: - Revocation

extension Attachment {
    /// Puts `newPolicy` in force: what it no longer allows is closed and removed before this returns. When the kernel
    /// refuses, the old policy stays in force and the error is thrown.
    public func replacePolicy(with newPolicy: CompiledPolicy) throws {
        try put(newPolicy.allowing(once: onceRules))
        record(event(.policyChanged))
        desk?.reconsider()
    }

    /// Allows something until its rule expires, behind all rules of the policy and without being one. What begins until
    /// then lives on, until a rule speaks against it.
    func allowOnce(_ rule: Rule) throws {
        try put(policy.allowing(once: onceRules.suffix(Self.maximumOnceRules - 1) + [rule]))
        desk?.reconsider()
    }

    private static let maximumOnceRules = 64

    /// What was allowed once, and is still.
    private var onceRules: [Rule] {
        let wallTime = loop.wallTime()
        return policy.once.filter { ($0.expiresAt ?? wallTime) > wallTime }
    }

    private func put(_ newPolicy: CompiledPolicy) throws {
        let previous = policy
        policy = newPolicy
        do {
            try enforceAgain()
        } catch {
            policy = previous
            try? openKernel(for: previous)
            throw error
        }
    }

    /// Takes the rules of the set-up phase away: what they alone allow is closed and removed before this returns. Nothing
    /// becomes reachable by it, so that it takes effect whether the kernel follows or not.
    public func lock(generation: UInt64) {
        policy = policy.locked(generation: generation)
        enforceAgainOrEnd()
        record(event(.policyChanged))
    }

    /// Guards the node's addresses as they are now. What leads to a new one is closed before this returns.
    public func guardNode(at addresses: [IPAddress]) {
        guard Set(addresses) != policy.guards.nodeAddresses else { return }
        policy = CompiledPolicy(
            policy.policy,
            always: policy.always,
            guards: GuardRanges(nodeAddresses: addresses),
            generation: policy.generation,
            once: onceRules
        )
        enforceAgainOrEnd()
    }

    /// Has the kernel let through what `policy` may allow whatever was resolved, to be looked at.
    private func openKernel(for policy: CompiledPolicy) throws(NetlinkError) {
        let wallTime = loop.wallTime()
        possible = policy.possibleAddresses(at: wallTime)
        try kernel.setPossible(possible)
        let reach = policy.datagramReach(at: wallTime)
        try kernel.setDatagrams(
            pinnedPorts: reach.portsByName,
            possiblePorts: reach.portsByAddress,
            reach.addresses
        )
    }

    /// Judges every pin, live tunnel, datagram flow and look-up again.
    private func enforceAgain() throws {
        let isSetupOver = endSetupByTime()
        defer { if isSetupOver { onSetupEnd() } }
        try openKernel(for: policy)
        try pinner.revoke(notAllowedBy: policy, at: loop.wallTime())
        for tunnel in tunnels.all { tunnel.reconsider() }
        lingering.reconsider()
        datagrams.reconsider()
        reconsiderLookups()
        armExpiry()
    }

    private func endEverything() {
        tunnels.all.forEach { $0.abort() }
        lingering.all.forEach { $0.abort() }
        datagrams.endAll()
        reconsiderLookups()
    }

    /// Denies everything, keeps policy and pins. Live tunnels and datagram flows end.
    public func pause() throws {
        isPaused = true
        endEverything()
        desk?.clear(because: "the sandbox was paused")
        try kernel.pause()
        record(event(.sandboxPaused))
    }

    /// Puts the policy in force again. Throws what happened after ``close(because:)``.
    public func resume() throws {
        if let rulesetChange { throw rulesetChange }
        try kernel.resume()
        isPaused = false
        record(event(.sandboxResumed))
    }

    /// Denies everything for good: the rules that enforcement stands on are not what they were. Everything that lives ends.
    func close(because change: RulesetChange) {
        guard rulesetChange == nil else { return }
        rulesetChange = change
        isPaused = true
        endEverything()
        desk?.clear(because: "the rules of the network were changed by somebody else")
        do {
            try kernel.pause()
        } catch {
            // Gone, where the kernel knows no owner: made again, it refuses everything.
            try? kernel.closeDoor()
        }
        var event = event(.rulesetChanged)
        event.detail = change.description
        record(event)
        onRulesetChange(change)
    }

    /// Opens the door for the first time: from now on what the sandbox sends reaches the listeners. Not for one that was
    /// taken over paused; its door opens when it is resumed.
    public func open(isPaused: Bool) throws {
        self.isPaused = isPaused
        if !isPaused { try kernel.installRedirects() }
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
        // After a pause, what connections have sent meanwhile is not to leave before they end.
        expiryTimer = loop.schedule(at: deadline, .beforeEvents) { [weak self] in self?.expireRules() }
    }

    private func expireRules() {
        expiryTimer = nil
        enforceAgainOrEnd()
    }

    /// Takes away the set-up phase when its time is over, so that a clock which is set back does not bring it back.
    private func endSetupByTime() -> Bool {
        guard policy.policy.hasSetupEnded(at: loop.wallTime()) else { return false }
        policy = policy.locked()
        hasSetupEnded = true
        return true
    }

    /// For changes that take effect whether the kernel follows or not.
    private func enforceAgainOrEnd() {
        do {
            try enforceAgain()
        } catch {
            // The kernel would not narrow its sets; `decide` still does, and what is live has to end.
            endEverything()
            armExpiry()
        }
        desk?.reconsider()
    }

    /// How many connections and datagram flows live.
    public var liveCount: Int { connectionCount + datagramFlowCount }

    /// How many connections live, those that are still being judged included.
    public var connectionCount: Int { tunnels.count }

    /// How many datagram flows live.
    public var datagramFlowCount: Int { datagrams.count }

    /// Whether servers have taken everything of the connections that are over.
    public var isDelivered: Bool { lingering.count == 0 }

    /// How many addresses are pinned.
    public var pinCount: Int { pinner.table.addressCount }
}
