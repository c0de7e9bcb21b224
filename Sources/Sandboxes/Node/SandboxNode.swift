public import Audit
public import Datapath
import EgressCore
public import EgressPolicy
import Glibc
import Namespaces
public import NetPrimitives
import Nftables
public import PolicyDocument
import Reactor

/// What a node is made with.
public struct NodeConfiguration: Sendable {
    /// Where state is kept, a file for each sandbox; on a disk that outlives the machine's restart.
    public var stateDirectory = "/var/lib/sandgate"
    /// Where namespaces that the node makes are mounted; on a file system that does not.
    public var runtimeDirectory = "/run/sandgate"
    /// Where the audit trail is written.
    public var auditDirectory = "/var/log/sandgate"
    /// When a file of the trail is followed by the next.
    public var auditLimits = AuditTrail.Limits()
    /// Bounds on the records that wait to be written.
    public var queueLimits = NodeJournal.Limits()
    /// The DNS servers that are asked, in this order.
    public var upstreamServers: [Endpoint] = []
    /// How long one of them may take to answer, in milliseconds.
    public var upstreamTimeoutMilliseconds = 2_000
    /// For sandboxes that are created without a policy.
    public var defaultPolicy = Policy()
    /// Around every policy.
    public var always = AlwaysRules()
    /// Where what is allowed for always is kept; `nil` when nothing is.
    public var answers: AnswerFile?
    /// How many threads carry traffic; a sandbox lives on one of them.
    public var loops = 1
    /// Bounds on each sandbox.
    public var limits = Attachment.Limits()
    /// Where the API is served over TCP: every sandbox is tried for refusing it. Loopback needs no mention, which each
    /// sandbox has its own of.
    public var control: [Endpoint] = []
    /// How container engines are asked.
    public var containers = ContainerRuntime()
    /// The most sandboxes at once, ended ones that are not released included.
    public var maximumSandboxes = 20_000
    /// The most sandboxes at once whose sockets to the outside are opened in their own network; 0 forbids it.
    public var maximumUpstreamInside = 1_000

    /// The defaults.
    public init() {}
}

/// The sandboxes of a machine under enforcement. What is acknowledged is on the disk: a node that begins takes up what
/// the one before it left, and until it has, the kernel's rules refuse everything.
public actor SandboxNode {
    /// What a node did when it began.
    public struct Beginning: Sendable {
        /// How many sandboxes were taken up again.
        public var adopted = 0
        /// How many were gone, with their namespaces.
        public var vanished = 0
        /// How many could not be taken up, and have their door closed.
        public var failed = 0
        /// What is wrong with files that are no records.
        public var problems: [String] = []
    }

    /// The records of what happens in its sandboxes.
    public nonisolated let journal: NodeJournal
    private let services: NodeServices
    let loops: DataLoops
    /// Where what is allowed for always is kept.
    let answers: AnswerFile?
    /// The rules are changed by one after the other, files and all.
    private let ruleChanges = Turns()
    private let maximumSandboxes: Int
    private(set) var rules: NodeRules {
        get { services.rules.value }
        set { services.rules.value = newValue }
    }
    private var sandboxes: [String: NodeSandbox] = [:]
    /// Which sandbox has a namespace, by the namespace's number.
    private var owners: [UInt64: String] = [:]
    private var expiries: [String: WallTime] = [:]
    private var expiryTask: (deadline: WallTime, task: Task<Void, Never>)?
    private var isStopping = false

    /// The wall clock may be set: expiries are looked at so often at least.
    private static let longestSleepSeconds: Int64 = 60

    /// Opens the directories and starts the threads. Sandboxes are taken up by ``begin()``.
    public init(_ configuration: NodeConfiguration) throws {
        let journal = try NodeJournal(
            directory: configuration.auditDirectory,
            limits: configuration.auditLimits,
            queue: configuration.queueLimits
        )
        self.journal = journal
        let vanished = AsyncStream<String>.makeStream()
        let moved = AsyncStream<[IPAddress]>.makeStream(bufferingPolicy: .bufferingNewest(1))
        let watch = try NamespaceWatch(
            onEnd: { vanished.continuation.yield($0) },
            onAddresses: { moved.continuation.yield($0) }
        )
        // Watched already, so that no change is missed.
        let addresses = try nodeAddresses()
        loops = try DataLoops(configuration, outlet: journal.outlet)
        var always = configuration.always
        always.answers = configuration.answers?.rulesAtOpening ?? []
        let rules = NodeRules(defaultPolicy: configuration.defaultPolicy, always: always, nodeAddresses: addresses)
        services = NodeServices(
            state: try StateDirectory(path: "\(configuration.stateDirectory)/sandboxes"),
            namespaces: try NamespaceSource(
                directory: "\(configuration.runtimeDirectory)/netns",
                containers: configuration.containers
            ),
            watch: watch,
            journal: journal,
            loops: loops,
            limits: configuration.limits,
            control: configuration.control,
            rules: CurrentRules(rules),
            nodeAddresses: CurrentNodeAddresses(addresses),
            endings: Turns()
        )
        answers = configuration.answers
        maximumSandboxes = configuration.maximumSandboxes
        Task { [weak self] in
            for await id in vanished.stream {
                // As for expiry, one that is busy keeps no other one waiting.
                Task { await self?.namespaceVanished(id) }
            }
        }
        Task { [weak self] in
            for await addresses in moved.stream { await self?.guardNode(at: addresses) }
        }
    }

    /// Takes up what a node before this one left, with what it handed over, if it did. To be called once, before anything
    /// else.
    public func begin(_ handed: HotRestart? = nil) async throws -> Beginning {
        var beginning = Beginning()
        var handed = handed ?? HotRestart([:])
        defer { handed.close() }
        let loaded = try services.state.load()
        beginning.problems = loaded.problems
        journal.record([AuditEvent(.daemonStarted, time: .current, sandbox: "")])
        var adopting: [(NodeSandbox, HandedSandbox?)] = []
        let areGone = try await Keeper.run { [namespaces = services.namespaces] in
            loaded.records.map { Self.isGone($0, namespaces) }
        }
        for (record, isGone) in zip(loaded.records, areGone) {
            guard let reference = record.namespace, !isGone else {
                // Was never acknowledged, or went with its namespace.
                if record.state != .pending { beginning.vanished += 1 }
                await forgetRemains(of: record)
                continue
            }
            let sandbox = NodeSandbox(record, services: services, loop: loops.next())
            sandboxes[record.id] = sandbox
            owners[reference.inode] = record.id
            expiries[record.id] = record.expiresAt
            adopting.append((sandbox, handed.take(record.id)))
        }
        // The time of one may be over before the others are taken up.
        armExpiry()
        // Two at a time for each core: most of it is waiting for the kernel.
        await withTaskGroup(of: Bool.self) { group in
            var rest = adopting[...]
            for _ in 0..<min(loops.shared.count * 2, adopting.count) {
                let (sandbox, handed) = rest.removeFirst()
                group.addTask { await Self.adopt(sandbox, handed) }
            }
            while let isFine = await group.next() {
                if isFine { beginning.adopted += 1 } else { beginning.failed += 1 }
                if let (sandbox, handed) = rest.popFirst() {
                    group.addTask { await Self.adopt(sandbox, handed) }
                }
            }
        }
        return beginning
    }

    private static func adopt(_ sandbox: NodeSandbox, _ handed: HandedSandbox?) async -> Bool {
        await sandbox.adopt(handed)
        return await sandbox.record.state != .failed
    }

    /// Whether there is nothing to take up: no namespace, or one that a process before this one had not begun to guard.
    private static func isGone(_ record: SandboxRecord, _ namespaces: NamespaceSource) -> Bool {
        guard record.state != .pending || record.attachment != .create, let reference = record.namespace else {
            return true
        }
        do {
            guard let namespace = try namespaces.reopen(reference) else { return true }
            guard record.state == .pending else { return false }
            return try !namespace.enter { try InsideSockets.closeRemains(ports: Sandbox.ports) }
        } catch {
            // Trying to take it up says why it cannot be.
            return (error as? NetlinkError)?.errno == EPERM
        }
    }

    private func forgetRemains(of record: SandboxRecord) async {
        try? await Keeper.run { [services] in
            if record.attachment == .create { try? services.namespaces.remove(record.id) }
            try? services.state.remove(record.id)
        }
        guard record.state != .pending else { return }
        journal.record([AuditEvent(.sandboxDetached, time: .current, sandbox: record.id)])
    }

    /// Returns when every thread that carries traffic has had a turn. One that hangs keeps this from returning.
    public func visitLoops() async {
        for loop in loops.all { try? await loop.run { _ in } }
    }

    /// Accepts nothing more, ends every connection and writes the journal to its end. The sandboxes' doors stay as they are,
    /// with nobody behind them: everything is refused until a node begins again.
    public func stop() async {
        isStopping = true
        expiryTask?.task.cancel()
        expiryTask = nil
        for loop in loops.all { try? await loop.run { $0.stop() } }
        // Behind the records of it.
        await visitLoops()
        journal.record([AuditEvent(.daemonStopped, time: .current, sandbox: "")])
        await journal.close()
    }
}

// MARK: - Handing over

extension SandboxNode {
    /// Stops every sandbox, and gives up what another process can go on with. Before ``stop()``; nothing is served any
    /// more. Returns a descriptor that holds all of it, which becomes the caller's.
    public func handOver() async throws -> CInt {
        isStopping = true
        var handed: [String: HandedSandbox] = [:]
        for loop in loops.all {
            handed.merge(try await loop.run { $0.handOver() }) { first, second in
                second.close()
                return first
            }
        }
        let all = HotRestart(handed)
        return try await Keeper.run { try all.pack() }
    }
}

// MARK: - Sandboxes

extension SandboxNode {
    /// Puts a namespace under enforcement. Asked again for the same sandbox with the same namespace and policy, it
    /// returns what there is.
    public func create(_ request: CreateRequest) async throws -> (record: SandboxRecord, isNew: Bool) {
        guard !isStopping else { throw NodeError.stopping }
        let id = request.id ?? newID()
        if let existing = sandboxes[id] { return (try await same(existing, as: request), false) }
        guard sandboxes.count < maximumSandboxes else {
            throw NodeError.failed("the node has \(maximumSandboxes) sandboxes, which is its limit")
        }
        let record = SandboxRecord(request, id: id, now: .current)
        let sandbox = NodeSandbox(record, services: services, loop: loops.next())
        // The name is taken from here on.
        sandboxes[id] = sandbox
        do {
            let inode = try await sandbox.findNamespace()
            guard sandboxes[id] === sandbox else { throw NodeError.unknownSandbox(id) }
            // One that was just made is nobody's: the kernel gives numbers of those that are gone again.
            if request.attachment != .create, let owner = owners[inode] {
                throw NodeError.conflict("this network namespace is that of sandbox \(owner)")
            }
            owners[inode] = id
            // Its time may be over before it is begun, where the disk hangs.
            noteExpiry(of: record)
            try await sandbox.begin()
        } catch {
            // A failed one stays, with its door closed, until it is released.
            if await sandbox.record.state != .failed, sandboxes[id] === sandbox { forget(id) }
            throw error
        }
        let begun = await sandbox.record
        noteExpiry(of: begun)
        return (begun, true)
    }

    private func same(_ existing: NodeSandbox, as request: CreateRequest) async throws -> SandboxRecord {
        let record = await existing.record
        guard record.attachment == request.attachment, request.attachment != .create else {
            throw NodeError.conflict("there is a sandbox \(record.id) already")
        }
        guard record.state == .running || record.state == .paused else {
            throw NodeError.conflict("sandbox \(record.id) is \(record.state.rawValue.lowercased())")
        }
        guard record.upstreamInside == request.upstreamInside else {
            throw NodeError.conflict("sandbox \(record.id) has its upstream sockets opened otherwise")
        }
        guard record.answers(request.policy) else {
            throw NodeError.conflict("sandbox \(record.id) has another policy: change it by its own resource")
        }
        return record
    }

    private func newID() -> String {
        var id: String
        repeat {
            id = "sbx-" + String(UInt64.random(in: 1 << 59..<(1 << 60)), radix: 32)
        } while sandboxes[id] != nil
        return id
    }

    private func forget(_ id: String) {
        sandboxes[id] = nil
        expiries[id] = nil
        if let inode = owners.first(where: { $0.value == id })?.key { owners[inode] = nil }
    }

    func find(_ id: String) throws -> NodeSandbox {
        guard !isStopping else { throw NodeError.stopping }
        guard let sandbox = sandboxes[id] else { throw NodeError.unknownSandbox(id) }
        return sandbox
    }

    /// What is known of a sandbox.
    public func record(of id: String) async throws -> SandboxRecord {
        try await find(id).record
    }

    /// What is going on in all sandboxes together.
    public func measurements() async -> NodeMeasurements {
        var measurements = NodeMeasurements()
        measurements.queuedRecords = journal.queuedRecords
        measurements.latencies = loops.pastLatencies
        for loop in loops.all {
            if let part = try? await loop.run({ $0.measure() }) { measurements.add(part) }
        }
        return measurements
    }

    /// How many connections and pins it has now.
    public func activity(of id: String) async throws -> (connections: Int, pins: Int) {
        try await find(id).activity()
    }

    /// The connections of a sandbox that come first in `order`, `limit` of them.
    public func connections(
        of id: String,
        order: ConnectionListing.Order,
        limit: Int
    ) async throws -> ConnectionListing {
        await (try find(id)).connections(order: order, limit: limit)
    }

    /// The connections of all sandboxes that come first in `order`, `limit` of them.
    public func connections(order: ConnectionListing.Order, limit: Int) async -> ConnectionListing {
        var all = ConnectionListing()
        for loop in loops.all {
            all.add(await loop.connections(of: nil, order: order, limit: limit), order: order, limit: limit)
        }
        return all
    }

    /// Every sandbox's id, sorted.
    public var ids: [String] { sandboxes.keys.sorted() }

    /// What is known of every sandbox, in the order of their ids.
    public func records() async -> [SandboxRecord] {
        var records: [SandboxRecord] = []
        for (_, sandbox) in sandboxes.sorted(by: { $0.key < $1.key }) { records.append(await sandbox.record) }
        return records
    }

    /// Releases a sandbox; one that is unknown is released already.
    public func release(_ id: String) async throws {
        guard !isStopping else { throw NodeError.stopping }
        guard let sandbox = sandboxes[id] else { return }
        do {
            try await sandbox.release()
        } catch NodeError.unknownSandbox {
            // Somebody else was faster.
        }
        if sandboxes[id] === sandbox { forget(id) }
    }

    private func namespaceVanished(_ id: String) async {
        guard let sandbox = sandboxes[id] else { return }
        await sandbox.vanish()
        if sandboxes[id] === sandbox { forget(id) }
    }
}

// MARK: - Life

extension SandboxNode {
    /// Denies everything; policy and pins stay.
    public func pause(_ id: String) async throws -> SandboxRecord {
        try await find(id).pause()
    }

    /// Puts the policy in force again.
    public func resume(_ id: String) async throws -> SandboxRecord {
        try await find(id).resume()
    }

    /// Tries again to put a failed sandbox under enforcement. `cause` says in the audit who asked for it.
    public func retry(_ id: String, _ cause: String) async throws -> SandboxRecord {
        let record = try await find(id).retry(cause)
        noteExpiry(of: record)
        return record
    }

    /// Ends its set-up phase for good. `cause` says in the audit who asked for it.
    public func lock(_ id: String, _ cause: String) async throws -> SandboxRecord {
        try await find(id).lock(cause)
    }

    /// Gives a sandbox until `time`.
    public func renew(_ id: String, until time: WallTime) async throws -> SandboxRecord {
        let record = try await find(id).renew(until: time)
        noteExpiry(of: record)
        return record
    }

    private func noteExpiry(of record: SandboxRecord) {
        expiries[record.id] = record.expiresAt
        armExpiry()
    }

    private func armExpiry() {
        guard let earliest = expiries.values.min(), !isStopping else { return }
        let deadline = min(earliest, WallTime.current.advanced(bySeconds: Self.longestSleepSeconds))
        if let expiryTask, expiryTask.deadline <= deadline { return }
        expiryTask?.task.cancel()
        let task = Task { [weak self] in
            let microseconds = max(deadline.microseconds - WallTime.current.microseconds, 0)
            try? await Task.sleep(for: .microseconds(microseconds))
            guard !Task.isCancelled else { return }
            await self?.expireDue()
        }
        expiryTask = (deadline, task)
    }

    private func expireDue() {
        expiryTask = nil
        let now = WallTime.current
        for (id, expiry) in expiries where expiry <= now {
            expiries[id] = nil
            guard let sandbox = sandboxes[id] else { continue }
            // What keeps one busy, a disk that hangs for one, keeps no other one open.
            Task { await expire(sandbox) }
        }
        armExpiry()
    }

    private func expire(_ sandbox: NodeSandbox) async {
        await sandbox.expire()
        // It may have been given more time meanwhile.
        let record = await sandbox.record
        guard record.state == .running || record.state == .paused, sandboxes[record.id] === sandbox,
            expiries[record.id] == nil
        else { return }
        noteExpiry(of: record)
    }
}

// MARK: - Policies

extension SandboxNode {
    /// The policy that is in force for a sandbox.
    public func policy(of id: String) async throws -> (policy: Policy, record: SandboxRecord) {
        let record = try await find(id).record
        return (record.policy ?? rules.defaultPolicy, record)
    }

    /// The policy that is in force for a sandbox of which `record` is known.
    public func effectivePolicy(of record: SandboxRecord) -> Policy { record.policy ?? rules.defaultPolicy }

    /// What is judged by around the sandboxes' own policies.
    public var operatorRules: AlwaysRules { rules.always }

    /// A policy with all that it would be judged with in a sandbox, or in one that asks nobody.
    public func compile(_ policy: Policy, for id: String? = nil) async throws -> CompiledPolicy {
        var isAsking = false
        if let id { isAsking = try await find(id).record.ask != nil }
        return rules.compile(policy, isAsking: isAsking)
    }

    /// Changes a sandbox's policy. `change` gets the policy in force. `expected` is the revision that is to be changed.
    public func changePolicy(
        of id: String,
        expecting expected: UInt64?,
        _ change: @Sendable (Policy) throws -> Policy
    ) async throws -> (policy: Policy, record: SandboxRecord) {
        let defaultPolicy = rules.defaultPolicy
        let record = try await find(id).setPolicy(expecting: expected) { policy in
            try change(policy ?? defaultPolicy)
        }
        return (record.policy ?? defaultPolicy, record)
    }

    /// Changes what is judged by besides the sandboxes' own policies, for all of them or for none. `read` is called when
    /// nobody else is changing it, on a thread where it may wait for a disk; the file of answers is read then as well. Returns what
    /// is around every policy, and in how many sandboxes, which are busy, it is put in force only when they are not.
    @discardableResult
    public func changeRules(
        _ read: @escaping @Sendable () throws -> (defaultPolicy: Policy, always: AlwaysRules)
    ) async throws -> (always: AlwaysRules, waiting: Int) {
        await ruleChanges.take()
        defer { ruleChanges.give() }
        let found = try await Blocking.run { [answers] in
            var found = try read()
            found.always.answers = try answers?.load() ?? []
            return found
        }
        var changed = rules
        (changed.defaultPolicy, changed.always) = found
        return (changed.always, try await change(rules: changed))
    }

    /// Puts the answer for always to a question in force for everybody who asks, and into the file for good.
    func keep(_ rule: Rule, in file: AnswerFile) async throws {
        await ruleChanges.take()
        defer { ruleChanges.give() }
        let addition = try await Blocking.run { try file.add(rule) }
        var changed = rules
        changed.always.answers = addition.rules
        do {
            try await change(rules: changed)
        } catch {
            try? await Blocking.run { addition.undo() }
            throw error
        }
    }

    @discardableResult
    private func change(rules changed: NodeRules) async throws -> Int {
        let before = rules
        rules = changed
        do {
            return try await reapplyRules()
        } catch {
            // The node's addresses may have become others meanwhile.
            (rules.defaultPolicy, rules.always) = (before.defaultPolicy, before.always)
            _ = try? await reapplyRules()
            throw error
        }
    }

    /// In how many sandboxes at once rules are put in force: each of them costs memory and a turn of its loop.
    private static let mostAtOnce = 32

    /// Puts the rules in force in all sandboxes, also when one fails. Returns how many of them are busy, and get them later.
    private func reapplyRules() async throws -> Int {
        let outcomes = await withTaskGroup(of: Result<Bool, any Error>.self) { [sandboxes] group in
            var outcomes: [Result<Bool, any Error>] = []
            for (number, sandbox) in sandboxes.values.enumerated() {
                if number >= Self.mostAtOnce, let ended = await group.next() { outcomes.append(ended) }
                group.addTask { await Self.reapplyRules(to: sandbox) }
            }
            for await ended in group { outcomes.append(ended) }
            return outcomes
        }
        return try outcomes.count { try !$0.get() }
    }

    private static func reapplyRules(to sandbox: NodeSandbox) async -> Result<Bool, any Error> {
        do {
            return .success(try await sandbox.reapply())
        } catch NodeError.unknownSandbox {
            // Was released meanwhile.
            return .success(true)
        } catch {
            return .failure(error)
        }
    }

    private func guardNode(at addresses: [IPAddress]) async {
        rules.nodeAddresses = addresses
        // For policies that were compiled before and are put in force after this.
        services.nodeAddresses.set(addresses)
        for loop in loops.all { try? await loop.run { $0.guardNode(at: addresses) } }
    }
}
