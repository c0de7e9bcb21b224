import Datapath
import EgressCore
import Glibc
import Namespaces
import NetPrimitives
import Reactor
import Synchronization
import UpstreamDNS

/// A thread with an event loop, and the sandboxes that live on it. What lives on it is touched by its thread alone, so a
/// noisy sandbox is held to one core and nothing needs a lock.
final class DataLoop: Sendable {
    /// What is confined to the loop's thread.
    final class Residents {
        let loop: EventLoop
        let upstream: UpstreamResolver
        /// Names of which somebody else is asked than ``upstream``; `nil` for none.
        let localNames: LocalNames?
        /// Counts for all sandboxes that live here, those that are gone included.
        let latencies = LatencyMeter()
        private let outbox: RecordOutbox
        private var sandboxes: [String: Sandbox] = [:]

        fileprivate init(
            servers: [Endpoint],
            timeoutMilliseconds: Int,
            upstreamPass: UpstreamPass?,
            localNames: EmbeddedResolver?,
            outlet: RecordOutlet
        ) throws {
            loop = try EventLoop(upstreamPass: upstreamPass)
            upstream = try UpstreamResolver(loop: loop, servers: servers, timeoutMilliseconds: timeoutMilliseconds)
            self.localNames = try localNames?.names(on: loop, timeoutMilliseconds: timeoutMilliseconds)
            outbox = RecordOutbox(loop: loop, outlet: outlet)
        }

        /// The sandbox called `id`, if it lives here.
        subscript(id: String) -> Sandbox? {
            get { sandboxes[id] }
            set { sandboxes[id] = newValue }
        }

        /// Has all of them guard the node's addresses as they are now.
        func guardNode(at addresses: [IPAddress]) {
            for sandbox in sandboxes.values { sandbox.guardNode(at: addresses) }
        }

        /// Has all of them stop. The kernel's rules stay.
        func stop() {
            sandboxes.values.forEach { $0.stop() }
            sandboxes = [:]
        }

        /// Has all of them stop, and gives up what another process can go on with.
        func handOver() -> [String: HandedSandbox] {
            defer { sandboxes = [:] }
            return sandboxes.mapValues { sandbox in
                var handed = sandbox.handOver()
                handed.pass = loop.upstreamPass
                return handed
            }
        }

        /// What somebody is asked in all of them, with the sandboxes' names.
        var questions: [(String, Questions.Question)] {
            sandboxes.flatMap { id, sandbox in (sandbox.attachment.desk?.open ?? []).map { (id, $0) } }
        }

        /// What is going on here now, and how long it took what went on so far.
        func measure() -> NodeMeasurements {
            var measurements = NodeMeasurements()
            measurements.latencies = latencies.counts
            for sandbox in sandboxes.values {
                measurements.connections += sandbox.attachment.connectionCount
                measurements.datagramFlows += sandbox.attachment.datagramFlowCount
                measurements.pins += sandbox.attachment.pinCount
            }
            return measurements
        }

        /// Looks through the connections of a sandbox, or of all, some in each turn of the loop. `completion` is called with what
        /// was found, now or later.
        func survey(
            _ id: String?,
            order: ConnectionListing.Order,
            limit: Int,
            completion: @escaping (ConnectionListing) -> Void
        ) {
            let examined = id.map { sandboxes[$0].map { [$0] } ?? [] } ?? Array(sandboxes.values)
            SurveyWalk(
                loop: loop,
                attachments: examined.map(\.attachment),
                survey: ConnectionSurvey(order: order, limit: limit),
                completion: completion
            ).go()
        }

        /// Where records go.
        var record: (AuditEvent) -> Void { { [outbox] in outbox.add($0) } }

        /// Has the thread end behind what is to be done in this turn, records included.
        fileprivate func end() {
            loop.schedule(at: loop.now) { [loop] in loop.stop() }
        }

        /// Gives back what belongs to the thread, before it is gone.
        fileprivate func close() {
            upstream.close()
            localNames?.resolver.close()
        }
    }

    /// What was asked of the thread and is not done, and whether it is to end when nothing is left.
    private struct Duties {
        var count = 0
        var isEnding = false
        var ended: (@Sendable () -> Void)?
    }

    /// What sockets to the outside have, where they are in a sandbox's namespace.
    let upstreamPass: UpstreamPass?
    private let residents: LoopBound<Residents>
    private let duties: SharedDuties

    /// Two threads' own: whoever asks, and the loop's.
    private final class SharedDuties: Sendable {
        let value = Mutex(Duties())
    }

    /// Starts the thread. What its sandboxes record goes to `outlet`, a turn of the loop at a time, in that thread. With a
    /// `namespace` the thread lives in there, and all of its sockets to the outside are opened there: they have
    /// `upstreamPass`, and `localNames` is asked of the names that it knows.
    init(
        servers: [Endpoint],
        timeoutMilliseconds: Int = 2_000,
        upstreamPass: UpstreamPass? = nil,
        in namespace: NetworkNamespace? = nil,
        localNames: EmbeddedResolver? = nil,
        outlet: RecordOutlet
    ) throws {
        self.upstreamPass = upstreamPass
        let duties = SharedDuties()
        self.duties = duties
        let started = Handover<Result<LoopBound<Residents>, any Error>>()
        Keeper.start {
            let residents: Residents
            do {
                try namespace?.moveIn()
                residents = try Residents(
                    servers: servers,
                    timeoutMilliseconds: timeoutMilliseconds,
                    upstreamPass: upstreamPass,
                    localNames: localNames,
                    outlet: outlet
                )
                try Keeper.beginCarrying()
            } catch {
                return started.give(.failure(error))
            }
            started.give(.success(LoopBound(residents, to: residents.loop)))
            do {
                try residents.loop.run()
            } catch {
                // Without its loop a sandbox is served by nobody; the rules refuse everything, and a new process begins.
                fatalError("an event loop ended: \(error)")
            }
            residents.close()
            if let ended = duties.value.withLock({ $0.ended }) { Keeper.deliver(ended) }
        }
        residents = try started.take().get()
    }

    /// Runs `body` in the loop's thread and returns what it returns.
    func run<Output: Sendable>(_ body: @escaping @Sendable (Residents) throws -> Output) async throws -> Output {
        try begin()
        return try await withCheckedThrowingContinuation { continuation in
            residents.post { [self] residents in
                let result = Result { try body(residents) }
                Keeper.deliver { continuation.resume(with: result) }
                done(residents)
            }
        }
    }

    /// Runs `body` in the loop's thread; it calls its completion there, once.
    func run<Output: Sendable>(
        completing body: @escaping @Sendable (Residents, @escaping @Sendable (Output) -> Void) -> Void
    ) async throws -> Output {
        try begin()
        return await withCheckedContinuation { continuation in
            residents.post { [self] residents in
                let envelope = LoopBound(residents, to: residents.loop)
                body(residents) { output in
                    Keeper.deliver { continuation.resume(returning: output) }
                    envelope.post { self.done($0) }
                }
            }
        }
    }

    private func begin() throws {
        try duties.value.withLock { duties in
            guard !duties.isEnding else { throw NodeError.failed("the sandbox's thread has ended") }
            duties.count += 1
        }
    }

    private func done(_ residents: Residents) {
        let isLast = duties.value.withLock { duties in
            duties.count -= 1
            return duties.isEnding && duties.count == 0
        }
        if isLast { residents.end() }
    }

    /// Has the thread end when what was asked of it is done, and waits for that; once. Nothing lives there any more.
    func end() async {
        await withCheckedContinuation { continuation in
            let isIdle = duties.value.withLock { duties in
                duties.isEnding = true
                duties.ended = { continuation.resume() }
                return duties.count == 0
            }
            if isIdle { residents.post { $0.end() } }
        }
    }
}

extension DataLoop {
    /// The connections of a sandbox that lives here, or of all, that come first in `order`, `limit` of them.
    func connections(of id: String?, order: ConnectionListing.Order, limit: Int) async -> ConnectionListing {
        let listing: ConnectionListing? = try? await run { residents, completion in
            residents.survey(id, order: order, limit: limit) { completion($0) }
        }
        return listing ?? ConnectionListing()
    }
}

/// One value on its way from a thread that gives it up to one that waits for it.
///
/// `@unchecked Sendable` holds because the giver lets go of the value, and the lock orders the two threads.
final class Handover<Value>: @unchecked Sendable {
    private let lock = Mutex(())
    private let isThere = UnsafeMutablePointer<sem_t>.allocate(capacity: 1)
    private var value: Value?

    init() {
        sem_init(isThere, 0, 0)
    }

    deinit {
        sem_destroy(isThere)
        isThere.deallocate()
    }

    /// Gives it up; once.
    func give(_ value: Value) {
        lock.withLock { _ in self.value = value }
        sem_post(isThere)
    }

    /// Waits for it and takes it; once.
    func take() -> Value {
        while sem_wait(isThere) != 0 {}
        return lock.withLock { _ in
            defer { value = nil }
            return value!
        }
    }
}

/// A value that one thread made, and that another one takes over for good.
///
/// `@unchecked Sendable` holds because the maker keeps nothing of it.
struct Transferred<Value>: @unchecked Sendable {
    let value: Value

    init(_ value: Value) {
        self.value = value
    }
}

/// Work that blocks for a moment, on a thread of its own, for callers that must not block.
package enum Blocking {
    /// Runs `body` there.
    package static func run<Output: Sendable>(_ body: @escaping @Sendable () throws -> Output) async throws -> Output {
        try await withCheckedThrowingContinuation { continuation in
            DetachedThread.start { continuation.resume(with: Result { try body() }) }
        }
    }
}
