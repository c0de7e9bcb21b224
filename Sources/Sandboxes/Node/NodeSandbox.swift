import Datapath
import EgressCore
import EgressPolicy
import Glibc
import Namespaces
import NetPrimitives
import Nftables
import PolicyDocument
import Reactor
import Synchronization

/// What a node judges by besides each sandbox's own policy.
struct NodeRules: Sendable {
    /// For sandboxes that were created without a policy.
    var defaultPolicy: Policy
    /// Around every policy; its answers are for sandboxes that ask.
    var always: AlwaysRules
    /// Addresses that are guarded like loopback.
    var nodeAddresses: [IPAddress]

    /// What is in force for a sandbox.
    func compile(_ record: SandboxRecord) -> CompiledPolicy {
        compile(record.policy ?? defaultPolicy, isAsking: record.ask != nil, generation: record.revision)
    }

    /// What would be in force with a policy.
    func compile(_ policy: Policy, isAsking: Bool, generation: UInt64 = 1) -> CompiledPolicy {
        var always = always
        if !isAsking { always.answers = [] }
        return CompiledPolicy(policy, always: always, nodeAddresses: nodeAddresses, generation: generation)
    }
}

/// A node's rules as they are now. They are read when it is a sandbox's turn, never before: who changes them waits for a turn of each
/// sandbox afterwards, so that none is left with those from before.
final class CurrentRules: Sendable {
    private let rules: Mutex<NodeRules>

    init(_ rules: NodeRules) {
        self.rules = Mutex(rules)
    }

    var value: NodeRules {
        get { rules.withLock { $0 } }
        set { rules.withLock { $0 = newValue } }
    }
}

/// What a node's sandboxes share.
struct NodeServices: Sendable {
    let state: StateDirectory
    let namespaces: NamespaceSource
    let watch: NamespaceWatch
    let journal: NodeJournal
    let loops: DataLoops
    let limits: Attachment.Limits
    /// Where the node's API is served over TCP, as sandboxes might reach it.
    let control: [Endpoint]
    let rules: CurrentRules
    let nodeAddresses: CurrentNodeAddresses
    /// Sandboxes that end by themselves are closed for the next process and noted on the disk one after the other: many may end at
    /// once, and each takes a thread for it.
    let endings: Turns
}

/// The node's addresses as they are now: a policy is compiled before it is put in force, and by then they may be others.
final class CurrentNodeAddresses: Sendable {
    private let addresses: Mutex<[IPAddress]>

    init(_ addresses: [IPAddress]) {
        self.addresses = Mutex(addresses)
    }

    /// Before the loops are visited, so that a policy is either compiled with these or found in its loop then.
    func set(_ current: [IPAddress]) {
        addresses.withLock { $0 = current }
    }

    /// Has a sandbox guard them whose policy has just been put in force.
    func guardThem(in sandbox: Sandbox) {
        sandbox.guardNode(at: addresses.withLock { $0 })
    }
}

/// One sandbox of a node, from its request to its release. What is asked of it is done one thing after the other, each
/// on the disk before it is answered; what fails leaves everything as it was.
///
///     Pending ─▶ Running ◀─▶ Paused
///        │          └────┬──────┘
///        ▼               ▼
///     Failed        Terminated        in both the door is closed, until the sandbox is released; one that is failed may
///                                     be tried again
actor NodeSandbox {
    private(set) var record: SandboxRecord
    let services: NodeServices
    /// The thread that it has to itself, which lives in its namespace; `nil` where it shares one, or while it is not served.
    private var ownLoop: DataLoop?
    private let sharedLoop: DataLoop
    /// Whether it lives on the loop: listeners are open and somebody is behind them.
    private var isServed = false
    /// Whether the namespace's table is this sandbox's, served or not.
    private var isGuarded = false
    private var isReleased = false
    /// Whether its door was closed at the end of its time, while something else was done for it.
    private var isClosedWhileBusy = false
    /// Whether the audit has it that it is detached.
    private var isToldDetached = false
    private let turns = Turns()

    init(_ record: SandboxRecord, services: NodeServices, loop: DataLoop) {
        self.record = record
        self.services = services
        sharedLoop = loop
    }

    private func compile(_ record: SandboxRecord) -> CompiledPolicy { services.rules.value.compile(record) }

    /// The thread that it lives on.
    var loop: DataLoop { ownLoop ?? sharedLoop }

    /// What is asked is done one after the other.
    private func exclusively<Output>(_ body: () async throws -> Output) async throws -> Output {
        await turns.take()
        defer { turns.give() }
        guard !isReleased else { throw NodeError.unknownSandbox(record.id) }
        return try await body()
    }

    private func event(_ kind: AuditEvent.Kind, _ detail: String? = nil) {
        var event = AuditEvent(kind, time: .current, sandbox: record.id)
        event.policyRevision = record.revision
        event.detail = detail
        services.journal.record([event])
    }

    /// Puts a changed record on the disk, then in place.
    private func save(_ changed: SandboxRecord) async throws {
        try await Blocking.run { [services, record] in
            do {
                try services.state.save(changed)
            } catch {
                // It may be there though it does not count; before the first there is nothing to go back to.
                if record.state != .pending { try? services.state.save(record) }
                throw Self.nodeError(error)
            }
        }
        record = changed
    }

    /// Puts a changed record on the disk, has it enforced, and puts it in place: all of it or nothing. `undo` enforces again what was
    /// enforced before.
    private func save(
        _ changed: SandboxRecord,
        enforcing enforce: () async throws -> Void,
        orElse undo: () async throws -> Void
    ) async throws {
        let staged = try await Blocking.run { [state = services.state] in
            do { return try state.stage(changed) } catch { throw Self.nodeError(error) }
        }
        do {
            try await enforce()
        } catch {
            try? await Blocking.run { [state = services.state] in state.discard(staged) }
            throw error
        }
        do {
            try await Blocking.run { [services, record] in
                do {
                    try services.state.commit(staged)
                } catch {
                    // It may be there though it does not count.
                    try? services.state.save(record)
                    throw error
                }
            }
        } catch {
            try? await undo()
            throw NodeError.failed("\(error)")
        }
        record = changed
    }
}

// MARK: - Beginning

extension NodeSandbox {
    /// Finds or makes the namespace; nothing is changed in one that exists. Returns its number. When it throws, nothing of
    /// the sandbox is left.
    func findNamespace() async throws -> UInt64 {
        try await exclusively {
            let (attachment, id) = (record.attachment, record.id)
            do {
                // What we make outlives us: on the disk before, so that a process after this one knows what to undo.
                if attachment == .create { try await save(record) }
                let reference = try await Keeper.run { [namespaces = services.namespaces] in
                    try namespaces.open(attachment, id: id).1
                }
                record.namespace = reference
                return reference.inode
            } catch {
                await abandon(after: error)
                throw error
            }
        }
    }

    /// Puts the namespace under enforcement: door closed, listeners, redirects, self-test. The sandbox runs when this
    /// returns. When it throws, a namespace that we made is gone; another one is left with its door closed and the
    /// sandbox failed, until it is released.
    func begin() async throws {
        try await exclusively { try await enforce() }
    }

    private func enforce(because cause: String? = nil) async throws {
        do {
            lockIfSetupEnded()
            // The same for rules in a namespace that was there, now that it is known to be nobody else's. One that is tried again
            // is on the disk, as what the next process is to take it for.
            if record.attachment != .create, record.state == .pending { try await save(record) }
            try await refuseThreats()
            try await serve(inheritance: .rules, isPaused: false)
            var running = record
            running.enter(.running, at: .current)
            try await save(running)
        } catch {
            await abandon(after: error)
            if !isReleased { watchNamespace() }
            throw Self.nodeError(error)
        }
        event(.sandboxAttached, cause)
        // In the file before it is acknowledged: a crash loses no record of it.
        await services.journal.flush()
        watchNamespace()
    }

    /// Takes a sandbox up again after a restart, paused or running as it was, with its pins. What cannot be taken up
    /// is failed, with its door closed; the next process tries again. One that was not acknowledged stays closed, to be
    /// released. `handed` is what the process before this one left to go on with.
    func adopt(_ handed: HandedSandbox?) async {
        // The node ends what is over. Thousands may be, and none that goes on waits for them.
        guard !hasExpired || record.state == .pending else {
            handed?.close()
            return watchNamespace()
        }
        try? await exclusively {
            defer { watchNamespace() }
            guard record.state == .running || record.state == .paused else {
                handed?.close()
                if record.state == .pending {
                    isGuarded = true
                    await abandon(after: NodeError.failed("the daemon ended while it was being attached"))
                }
                return
            }
            if lockIfSetupEnded() {
                try? await save(record)
                event(.sandboxLocked, Self.timeIsOver)
            }
            do {
                let isPaused = record.state == .paused
                let keepsDoor = handed?.families.isEmpty == false && !isPaused
                try await serve(
                    inheritance: keepsDoor ? .pinsAndDoor : .pins,
                    isPaused: isPaused,
                    handed
                )
            } catch {
                await abandon(after: error)
            }
        }
    }

    /// Tries again to put a failed sandbox under enforcement: behind the closed door everything is opened and tried as at the
    /// beginning, beside the rules that others have in the namespace now. When it throws, the sandbox is failed as before, and
    /// says why. `cause` says in the record who asked for it.
    func retry(_ cause: String) async throws -> SandboxRecord {
        try await exclusively {
            guard record.state == .failed else { throw conflict("be tried again") }
            guard !hasExpired else {
                throw NodeError.conflict("the time of sandbox \(record.id) is over: delete it")
            }
            try await enforce(because: cause)
            return record
        }
    }

    private func watchNamespace() {
        guard let namespace = record.namespace else { return }
        services.watch.watch(record.id, at: namespace.path)
    }

    /// What has been done in a namespace that was there before, and who could do more.
    private func refuseThreats() async throws {
        guard record.attachment != .create, let reference = record.namespace else { return }
        // Who could still make something is looked for before what was made.
        if !record.acceptsRawSockets { try await refuseInhabitants(of: reference) }
        if !record.acceptsRawSockets || !record.acceptsSidePaths { try await refuseHolders(in: reference) }
        if !record.acceptsSidePaths { try await refuseSidePaths(in: reference) }
    }

    /// Who keeps something from when it had capabilities. Where packet sockets are accepted, who has them needs no BPF program, and
    /// not every process of the machine is looked at.
    private func refuseHolders(in reference: NamespaceReference) async throws {
        typealias Holders = (ofDevice: Inhabitants.Holder?, others: [Inhabitants.Keepsake: Inhabitants.Holder])
        let acceptsRawSockets = record.acceptsRawSockets
        let found = try await Keeper.run { [namespaces = services.namespaces] () throws -> Holders in
            guard let namespace = try namespaces.reopen(reference) else { return (nil, [:]) }
            let devices = try namespace.enter { try SideWays.heldDevices() }
            guard !acceptsRawSockets || !devices.isEmpty else { return (nil, [:]) }
            let processes = try Inhabitants.neighbours(of: namespace)
            let others = acceptsRawSockets ? [:] : try Inhabitants.holders(among: processes)
            return (try Inhabitants.holder(of: devices, among: processes), others)
        }
        func refuse(_ holder: Inhabitants.Holder?, _ what: String, _ consent: String) throws {
            guard let holder else { return }
            let why = "process \(holder.process) (\(holder.program)) has \(what): end it, or say \(consent)"
            throw NodeError.unprocessable(field: "attachment", why)
        }
        if !record.acceptsSidePaths {
            let device = found.ofDevice?.device ?? "?"
            let what = "device \(device) of this namespace open, whose packets come from outside for the rules"
            try refuse(found.ofDevice, what, "acceptSidePaths")
            let program = "a BPF program open, which can be attached to devices of this namespace without a capability"
            try refuse(found.others[.program], program, "acceptSidePaths")
        }
        if !record.acceptsRawSockets {
            let ring = "an io_uring open, which may have kept capabilities that it had, and open packet sockets by them"
            try refuse(found.others[.ring], ring, "acceptRawSockets")
        }
    }

    private func refuseSidePaths(in reference: NamespaceReference) async throws {
        let ways = SideWays(hasUpstreamInside: record.upstreamInside != nil, needsPrograms: true, hasFence: false)
        let found: [SidePath]
        do {
            found = try await Keeper.run { [namespaces = services.namespaces] in
                try namespaces.reopen(reference)?.enter { try ways.find() } ?? []
            }
        } catch let error as NetlinkError {
            throw NodeError.failed("whether packets could get past the rules in this namespace is not known: \(error)")
        }
        if let why = SidePath.refusal(of: found, in: "this namespace", consent: "acceptSidePaths") {
            throw NodeError.unprocessable(field: "attachment", why)
        }
    }

    /// For how many milliseconds who is in the namespace may be on the way out: a container runtime's own process is there
    /// with all capabilities until it becomes the workload, which `docker run --detach` does not wait for.
    private static let patienceMilliseconds: UInt64 = 1_000

    private func refuseInhabitants(of reference: NamespaceReference) async throws {
        let deadline = MonotonicTime.current.advanced(byNanoseconds: Self.patienceMilliseconds * 1_000_000)
        var (threats, sockets) = try await inhabitants(of: reference)
        while !threats.isEmpty, .current < deadline {
            try await Task.sleep(for: .milliseconds(50))
            (threats, sockets) = try await inhabitants(of: reference)
        }
        if let first = threats.first {
            let others = threats.count > 1 ? " and \(threats.count - 1) more" : ""
            throw NodeError.unprocessable(
                field: "attachment",
                "process \(first.process) (\(first.program))\(others) in this namespace could get around the rules with "
                    + "\(first.capabilities.joined(separator: ", ")): start it without, or say acceptRawSockets"
            )
        }
        if let sockets {
            throw NodeError.unprocessable(
                field: "attachment",
                "somebody has \(sockets) open in this namespace, which get around the rules: end the programs that opened "
                    + "them (ss -0p), or say acceptRawSockets"
            )
        }
    }

    private func inhabitants(
        of reference: NamespaceReference
    ) async throws -> (threats: [Inhabitants.Threat], sockets: String?) {
        try await Keeper.run { [namespaces = services.namespaces] in
            guard let namespace = try namespaces.reopen(reference) else { return ([], nil) }
            // The sockets after the processes: who may open none any more may have one.
            return (try Inhabitants.threats(in: namespace), try FrameSockets(in: namespace).description)
        }
    }

    /// Its namespace; `nil` when it is gone.
    private func reopenNamespace() async throws -> NetworkNamespace? {
        guard let reference = record.namespace else { return nil }
        return try await Keeper.run { [namespaces = services.namespaces] in try namespaces.reopen(reference) }
    }

    /// Opens what serves the sandbox and has it tried from inside.
    private func serve(
        inheritance: InsideSockets.Inheritance,
        isPaused: Bool,
        _ handed: HandedSandbox? = nil
    ) async throws {
        let namespace: NetworkNamespace
        do {
            guard let found = try await reopenNamespace() else {
                throw NodeError.failed("the namespace of \(record.id) is gone")
            }
            namespace = found
            if let upstream = record.upstreamInside { try await moveIn(found, upstream, pass: handed?.pass) }
        } catch {
            handed?.close()
            throw error
        }
        let isOurs = record.attachment == .create
        let policy = compile(record)
        let inbound = record.inbound
        let refusals = services.limits.refusals
        let opensUDP = !policy.datagramReach(at: .current).isEmpty
        let (pass, asksDocker) = (loop.upstreamPass, record.upstreamInside?.asksDocker ?? false)
        var tunnels = handed
        tunnels?.families = []
        let (unserved, listeners) = (tunnels, handed?.families ?? [])
        var isTakenOver = false
        defer { if !isTakenOver { unserved?.close() } }
        let open: @Sendable () throws -> Transferred<InsideSockets> = {
            try namespace.enter {
                if !isOurs { try Link(named: "lo").setUp() }
                let inside = try InsideSockets.open(
                    ports: Sandbox.ports,
                    refusals: refusals,
                    inheritance: inheritance,
                    handed: listeners,
                    gateways: isOurs ? SandboxNetwork.Plan.gateways : [],
                    onLink: isOurs ? [] : try onLinkPrefixes(),
                    needsIPv6: isOurs,
                    opensUDP: opensUDP,
                    upstream: pass,
                    asksDocker: asksDocker
                )
                do {
                    try inside.table.setServedPorts(inbound)
                } catch {
                    inside.abandon()
                    throw error
                }
                return Transferred(inside)
            }
        }
        let inside: Transferred<InsideSockets>
        do {
            inside = try await Keeper.run(open)
        } catch {
            if await Self.closeRemains(in: namespace) { isGuarded = true }
            throw error
        }
        isGuarded = true
        let (id, isAsking) = (record.id, record.ask != nil)
        var bounds = services.limits
        if let seconds = record.ask?.seconds { bounds.questions.deadlineSeconds = UInt64(seconds) }
        let (limits, addresses) = (bounds, services.nodeAddresses)
        try await loop.run { residents in
            let sandbox = try Sandbox(
                id: id,
                loop: residents.loop,
                inside: inside.value,
                attempt: { probes in try namespace.enter { try probes.probe() } },
                policy: policy,
                upstream: residents.upstream,
                localNames: residents.localNames,
                isPaused: isPaused,
                limits: limits,
                isAsking: isAsking,
                latencies: residents.latencies,
                record: residents.record
            )
            do {
                try sandbox.onRulesetChange { [weak self] change in
                    Keeper.deliver { [weak self] in Task { await self?.fail(because: change) } }
                }
                sandbox.onSetupEnd { [weak self] in
                    Keeper.deliver { [weak self] in Task { await self?.setupEnded() } }
                }
            } catch {
                sandbox.shut()
                throw error
            }
            residents[id] = sandbox
            addresses.guardThem(in: sandbox)
        }
        isServed = true
        if let unserved {
            isTakenOver = true
            try await loop.run { residents in residents[id]?.takeOver(unserved) ?? unserved.close() }
        }
        // Behind a closed door nothing is redirected, so there is nothing to try.
        guard !isPaused else { return }
        let failure: SelfTestFailure? = try await loop.run { [control = services.control] residents, completion in
            guard let sandbox = residents[id] else { return completion(.cannotProbe("the sandbox has gone")) }
            sandbox.selfTest(toleratesMissingRoutes: !isOurs, control: control, completion: completion)
        }
        if let failure { throw NodeError.failed("\(failure)") }
    }

    /// Gives it a thread of its own that lives in its namespace, where all sockets to the outside are opened from then on.
    /// `pass` is that of the process before this one, whose connections go on.
    private func moveIn(
        _ namespace: NetworkNamespace,
        _ upstream: CreateRequest.UpstreamInside,
        pass: UpstreamPass?
    ) async throws {
        let loops = services.loops
        ownLoop = try await Keeper.run { try loops.open(in: namespace, upstream, pass: pass ?? .random()) }
    }

    /// Ends that thread.
    private func moveOut() async {
        guard let loop = ownLoop else { return }
        ownLoop = nil
        await services.loops.end(loop)
    }

    /// Whether an attempt left a table in the namespace, whose door is closed then; also when nobody knows.
    private static func closeRemains(in namespace: NetworkNamespace) async -> Bool {
        do {
            return try await Keeper.run {
                try namespace.enter { try InsideSockets.closeRemains(ports: Sandbox.ports) }
            }
        } catch {
            // Another process's is none of ours.
            return (error as? NetlinkError)?.errno != EPERM
        }
    }

    /// After a failure: closes the door, and removes what we made.
    private func abandon(after error: any Error) async {
        await shut()
        let isOurs = record.attachment == .create
        if record.state == .pending, isOurs || !isGuarded {
            isReleased = true
            try? await Keeper.run { [services, id = record.id] in
                if isOurs { try services.namespaces.remove(id) }
                try services.state.remove(id)
            }
            return
        }
        var failed = record
        let isChange = error is RulesetChange
        let reason = isChange ? "ruleset-changed" : "enforcement-failed"
        failed.enter(.failed, reason: reason, message: "\(error)", at: .current)
        // What was acknowledged stays what it was on the disk, and is tried again by the next process, unless somebody
        // changed the rules: then it is closed for good.
        guard record.state == .pending || isChange else { return record = failed }
        do { try await save(failed) } catch { record = failed }
    }

    private static func nodeError(_ error: any Error) -> NodeError {
        if let error = error as? NetlinkError, error.errno == EPERM {
            return .conflict("another process enforces a policy in this network namespace: \(error)")
        }
        return error as? NodeError ?? .failed("\(error)")
    }
}

// MARK: - Policy

extension NodeSandbox {
    /// Puts another policy in force; `nil` for the node's default. What it no longer allows has ended when this returns.
    /// `expected` is the revision that the caller wants to change.
    func setPolicy(
        expecting expected: UInt64?,
        _ change: (Policy?) throws -> Policy?
    ) async throws -> SandboxRecord {
        try await exclusively {
            if let expected, expected != record.revision { throw NodeError.stale(current: record.revision) }
            guard record.state == .running || record.state == .paused else { throw conflict("have its policy changed") }
            var changed = record
            changed.policy = try change(record.policy)
            if changed.policy?.setup != nil, record.lockedAt != nil {
                throw NodeError.conflict(
                    "sandbox \(record.id) is locked, so that no set-up phase can begin in it: leave setup out, "
                        + "and what is to be allowed for good put under egress"
                )
            }
            changed.revision += 1
            try await save(
                changed,
                enforcing: { try await enforce(compile(changed)) },
                orElse: { try await enforce(compile(record)) }
            )
            return changed
        }
    }

    /// Ends the set-up phase for good: its rules are gone when this returns, and with them what they alone allowed. Locked
    /// already, it returns what there is. `cause` says in the record who asked for it.
    func lock(_ cause: String) async throws -> SandboxRecord {
        try await exclusively {
            guard record.state == .running || record.state == .paused else { throw conflict("be locked") }
            guard record.lockedAt == nil else { return record }
            var changed = record
            changed.lock(at: .current)
            // On the disk first: whatever happens from now on, nothing opens it again.
            try await save(changed)
            await enforceLock(cause)
            await services.journal.flush()
            return record
        }
    }

    /// The same when its time is over, which needs no disk: what comes after us sees the time as well.
    private func setupEnded() async {
        try? await exclusively {
            guard record.state == .running || record.state == .paused, lockIfSetupEnded() else { return }
            try? await save(record)
            await enforceLock(Self.timeIsOver)
        }
    }

    /// Locks the record of one whose set-up phase has come to its end by time. Returns whether it did.
    @discardableResult
    private func lockIfSetupEnded() -> Bool {
        guard record.policy?.hasSetupEnded(at: .current) == true else { return false }
        record.lock(at: .current)
        return true
    }

    private static let timeIsOver = "the set-up phase's time was over"

    /// What the lock leaves is made of what is in force, so that nothing else changes with it.
    private func enforceLock(_ cause: String) async {
        let (id, revision) = (record.id, record.revision)
        try? await loop.run { residents in residents[id]?.attachment.lock(generation: revision) }
        event(.sandboxLocked, cause)
    }

    /// Puts the same policy in force under the node's rules, which have changed. One that is busy for longer than a moment, with a
    /// disk that hangs for one, is not waited for: it gets them later, and is failed where they cannot be put in force then. Returns
    /// whether they are in force.
    func reapply() async throws -> Bool {
        let (outcomes, continuation) = AsyncStream.makeStream(of: Result<Bool, any Error>.self)
        let lateness = Lateness()
        Task {
            do {
                try await reapply(lateness)
                continuation.yield(.success(true))
            } catch {
                continuation.yield(.failure(error))
            }
        }
        let limit = Task {
            try await Task.sleep(for: Self.patience)
            if lateness.begin() { continuation.yield(.success(false)) }
        }
        defer { limit.cancel() }
        for await outcome in outcomes { return try outcome.get() }
        return false
    }

    private func reapply(_ lateness: Lateness) async throws {
        try await exclusively {
            lateness.end()
            guard record.state == .running || record.state == .paused else { return }
            do {
                try await enforce(compile(record))
            } catch {
                if lateness.isLate { await abandon(after: error) }
                throw error
            }
        }
    }

    /// For how long one that is busy is waited for, where something must not wait.
    private static let patience = Duration.seconds(1)

    /// Whether a turn has come later than it was waited for.
    private final class Lateness: Sendable {
        private let state = Mutex<Bool?>(nil)

        var isLate: Bool { state.withLock { $0 == true } }

        /// The time is over; `false` where the turn has come.
        func begin() -> Bool {
            state.withLock { isLate in
                isLate = isLate ?? true
                return isLate == true
            }
        }

        /// The turn has come.
        func end() {
            state.withLock { $0 = $0 ?? false }
        }
    }

    private func enforce(_ policy: CompiledPolicy) async throws {
        let id = record.id
        do {
            if !policy.datagramReach(at: .current).isEmpty { try await serveDatagrams() }
            try await loop.run { [addresses = services.nodeAddresses] residents in
                guard let sandbox = residents[id] else { return }
                try sandbox.attachment.replacePolicy(with: policy)
                addresses.guardThem(in: sandbox)
            }
        } catch {
            throw NodeError.failed("the policy was not changed: \(error)")
        }
    }

    /// Opens the relay for datagrams, when a policy opens UDP for the first time.
    private func serveDatagrams() async throws {
        let id = record.id
        let isServed = try await loop.run { residents in residents[id]?.servesDatagrams ?? true }
        guard !isServed, let namespace = try await reopenNamespace() else { return }
        let needsIPv6 = record.attachment == .create
        let sockets = try await Keeper.run {
            try namespace.enter {
                Transferred(try InsideSockets.openDatagrams(ports: Sandbox.ports, needsIPv6: needsIPv6))
            }
        }
        try await loop.run { residents in
            guard let sandbox = residents[id] else { return sockets.value.close() }
            try sandbox.serve(sockets.value)
        }
    }

    private func conflict(_ what: String) -> NodeError {
        .conflict("sandbox \(record.id) is \(record.state.rawValue.lowercased()) and cannot \(what)")
    }
}

// MARK: - Life

extension NodeSandbox {
    /// Denies everything; policy and pins stay.
    func pause() async throws -> SandboxRecord {
        try await move(from: .running, to: .paused, "be paused") { changed in
            try await save(changed, enforcing: { try await closeDoor() }, orElse: { try await openDoor() })
        }
    }

    /// Puts the policy in force again.
    func resume() async throws -> SandboxRecord {
        try await move(from: .paused, to: .running, "be resumed") { changed in
            let before = record
            // The door opens after the disk says so.
            try await save(changed)
            do {
                try await openDoor()
            } catch {
                try? await save(before)
                throw Self.nodeError(error)
            }
        }
    }

    private func move(
        from: SandboxRecord.State,
        to: SandboxRecord.State,
        _ verb: String,
        _ change: (SandboxRecord) async throws -> Void
    ) async throws -> SandboxRecord {
        try await exclusively {
            if record.state == to { return record }
            guard record.state == from else { throw conflict(verb) }
            var changed = record
            changed.enter(to, at: .current)
            try await change(changed)
            return record
        }
    }

    private func closeDoor() async throws {
        let id = record.id
        do {
            try await loop.run { residents in try residents[id]?.attachment.pause() }
        } catch {
            try? await openDoor()
            throw Self.nodeError(error)
        }
    }

    private func openDoor() async throws {
        let id = record.id
        try await loop.run { residents in try residents[id]?.attachment.resume() }
    }

    /// Gives it until `time`.
    func renew(until time: WallTime) async throws -> SandboxRecord {
        try await exclusively {
            guard record.state == .running || record.state == .paused else { throw conflict("be renewed") }
            guard time > .current else { throw NodeError.unprocessable(field: "expiresAt", "has passed") }
            var changed = record
            changed.expiresAt = time
            try await save(changed)
            return record
        }
    }

    /// Ends it when its time is over: closes the door for good. The rules stay until it is released. The door of one that is busy,
    /// with a disk that hangs for one, closes soon all the same.
    func expire() async {
        let limit = Task {
            try await Task.sleep(for: Self.patience)
            await closeDoorWhileBusy()
        }
        defer { limit.cancel() }
        try? await exclusively {
            guard record.state == .running || record.state == .paused else { return }
            guard !hasExpired else { return await terminate() }
            // It was given more time meanwhile.
            guard isClosedWhileBusy else { return }
            isClosedWhileBusy = false
            guard record.state == .running else { return }
            do { try await openDoor() } catch { await abandon(after: error) }
        }
    }

    /// What has its turn may open it again, and is followed by the end.
    private func closeDoorWhileBusy() async {
        guard isServed, record.state != .paused, hasExpired else { return }
        isClosedWhileBusy = true
        let id = record.id
        try? await loop.run { residents in try residents[id]?.attachment.pause() }
    }

    private var hasExpired: Bool { record.expiresAt.map { $0 <= .current } ?? false }

    /// Closes the door, also one that a process before this one left: nobody is behind that one, so it can wait for its turn.
    private func terminate() async {
        let wasServed = isServed
        await shut()
        event(.sandboxExpired)
        record.enter(.terminated, reason: "expired", message: "its time was over", at: .current)
        await services.endings.take()
        defer { services.endings.give() }
        if !wasServed, let namespace = try? await reopenNamespace() { _ = await Self.closeRemains(in: namespace) }
        try? await save(record)
    }

    /// Releases it: nothing of it is left, neither rules nor files. What could not be released is closed, or nothing but its file is
    /// left, and its state says so; it can be asked for again.
    func release() async throws {
        try await exclusively {
            services.watch.forget(record.id)
            let wasLive = record.state == .running || record.state == .paused
            await shut()
            do {
                try await Keeper.run { [services, record] in
                    if record.attachment == .create {
                        try services.namespaces.remove(record.id)
                    } else if let namespace = try record.namespace.flatMap(services.namespaces.reopen) {
                        try namespace.enter { try InsideSockets.removeTable(ports: Sandbox.ports) }
                    }
                }
            } catch {
                if wasLive { await remain(.failed, "release-failed", "it could not be released: \(error)") }
                watchNamespace()
                throw Self.nodeError(error)
            }
            do {
                try await Blocking.run { [services, record] in try services.state.remove(record.id) }
            } catch {
                if wasLive || record.reason == "release-failed" { tellDetached() }
                await remain(.terminated, "released", "it is released, and its record is still on the disk: \(error)")
                watchNamespace()
                throw Self.nodeError(error)
            }
            if wasLive || record.reason == "release-failed" {
                tellDetached()
                await services.journal.flush()
            }
            isReleased = true
        }
    }

    /// Is in another state from now on, whether the disk takes it or not.
    private func remain(_ state: SandboxRecord.State, _ reason: String, _ message: String) async {
        var changed = record
        changed.enter(state, reason: reason, message: message, at: .current)
        do { try await save(changed) } catch { record = changed }
    }

    private func tellDetached() {
        guard !isToldDetached else { return }
        isToldDetached = true
        event(.sandboxDetached)
    }

    /// Somebody else changed the rules in its namespace: it is failed, and its door closed already.
    private func fail(because change: any Error) async {
        try? await exclusively {
            guard record.state == .running || record.state == .paused else { return }
            await abandon(after: change)
        }
    }

    /// The namespace is gone: nothing is left to guard.
    func vanish() async {
        try? await exclusively {
            await shut()
            tellDetached()
            isReleased = true
            await services.endings.take()
            defer { services.endings.give() }
            try? await Keeper.run { [services, record] in
                if record.attachment == .create { try services.namespaces.remove(record.id) }
                try services.state.remove(record.id)
            }
        }
    }

    /// Closes the door and every socket. The table stays.
    private func shut() async {
        if isServed {
            isServed = false
            let id = record.id
            try? await loop.run { residents in
                residents[id]?.shut()
                residents[id] = nil
            }
        }
        await moveOut()
    }
}

// MARK: - Watching

extension NodeSandbox {
    /// What lives in it now.
    func activity() async -> (connections: Int, pins: Int) {
        let id = record.id
        let counts = try? await loop.run { residents in
            residents[id].map { ($0.attachment.liveCount, $0.attachment.pinCount) } ?? (0, 0)
        }
        return counts ?? (0, 0)
    }

    /// The connections that come first in `order`, `limit` of them.
    func connections(order: ConnectionListing.Order, limit: Int) async -> ConnectionListing {
        await loop.connections(of: record.id, order: order, limit: limit)
    }
}
