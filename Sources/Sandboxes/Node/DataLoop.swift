import Datapath
import EgressCore
import Glibc
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
        /// Counts for all sandboxes that live here, those that are gone included.
        let latencies = LatencyMeter()
        private let outbox: RecordOutbox
        private var sandboxes: [String: Sandbox] = [:]

        fileprivate init(
            servers: [Endpoint],
            timeoutMilliseconds: Int,
            upstreamPass: UpstreamPass?,
            outlet: RecordOutlet
        ) throws {
            loop = try EventLoop(upstreamPass: upstreamPass)
            upstream = try UpstreamResolver(loop: loop, servers: servers, timeoutMilliseconds: timeoutMilliseconds)
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

        /// Has all of them stop, and gives up what another process can go on with.
        func handOver() -> [String: HandedSandbox] {
            defer { sandboxes = [:] }
            return sandboxes.mapValues { $0.handOver() }
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
    }

    private let residents: LoopBound<Residents>

    /// Starts the thread. What its sandboxes record goes to `outlet`, a turn of the loop at a time, in that thread.
    init(
        servers: [Endpoint],
        timeoutMilliseconds: Int = 2_000,
        upstreamPass: UpstreamPass? = nil,
        outlet: RecordOutlet
    ) throws {
        let started = Handover<Result<LoopBound<Residents>, any Error>>()
        Keeper.start {
            let residents: Residents
            do {
                residents = try Residents(
                    servers: servers,
                    timeoutMilliseconds: timeoutMilliseconds,
                    upstreamPass: upstreamPass,
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
        }
        residents = try started.take().get()
    }

    /// Runs `body` in the loop's thread and returns what it returns.
    func run<Output: Sendable>(_ body: @escaping @Sendable (Residents) throws -> Output) async throws -> Output {
        try await withCheckedThrowingContinuation { continuation in
            residents.post { residents in
                let result = Result { try body(residents) }
                Keeper.deliver { continuation.resume(with: result) }
            }
        }
    }

    /// Runs `body` in the loop's thread; it calls its completion there, once.
    func run<Output: Sendable>(
        completing body: @escaping @Sendable (Residents, @escaping @Sendable (Output) -> Void) -> Void
    ) async -> Output {
        await withCheckedContinuation { continuation in
            residents.post { residents in
                body(residents) { output in Keeper.deliver { continuation.resume(returning: output) } }
            }
        }
    }
}

extension DataLoop {
    /// The connections of a sandbox that lives here, or of all, that come first in `order`, `limit` of them.
    func connections(of id: String?, order: ConnectionListing.Order, limit: Int) async -> ConnectionListing {
        await run { residents, completion in
            residents.survey(id, order: order, limit: limit) { completion($0) }
        }
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
