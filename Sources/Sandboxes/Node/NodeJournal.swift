public import Audit
public import EgressCore
import NetPrimitives
import Reactor
import Synchronization

/// Writes what all sandboxes of a node record into one audit trail, on a thread of its own: traffic never waits for the
/// disk, and what comes faster than it can be written is counted.
public final class NodeJournal: Sendable {
    /// One record as it was written.
    public struct Line: Sendable {
        /// Its place in the trail.
        public let sequence: UInt64
        /// The record's line, without a newline.
        public let bytes: [UInt8]
    }

    private let state: LoopBound<State>
    /// Records on their way to the journal's thread.
    private let underWay = Mutex(0)
    private let overflow = Mutex<UInt64>(0)

    /// What may be under way at once, some 100 MiB at most.
    private static let capacity = 200_000

    /// Opens the trail in `directory` and starts the thread.
    public init(directory: String, limits: AuditTrail.Limits) throws {
        let started = Handover<Result<LoopBound<State>, any Error>>()
        DetachedThread.start {
            do {
                let loop = try EventLoop()
                let trail = try AuditTrail(directory: directory, limits: limits)
                let state = State(loop: loop, trail: trail)
                started.give(.success(LoopBound(state, to: loop)))
                try loop.run()
            } catch {
                started.give(.failure(error))
            }
        }
        state = try started.take().get()
    }

    /// Records events; never blocks.
    public func record(_ events: [AuditEvent]) {
        let isAccepted = underWay.withLock { count in
            guard count + events.count <= Self.capacity else { return false }
            count += events.count
            return true
        }
        guard isAccepted else {
            overflow.withLock { $0 += UInt64(events.count) }
            return
        }
        state.post { [self] state in
            underWay.withLock { $0 -= events.count }
            var lost = overflow.withLock { lost in
                defer { lost = 0 }
                return lost
            }
            for event in events {
                if lost > 0 {
                    var loss = AuditEvent(.auditLost, time: event.time, sandbox: "")
                    loss.count = lost
                    lost = 0
                    state.add(loss)
                }
                state.add(event)
            }
        }
    }

    /// How many records are on their way to the journal's thread.
    public var queuedRecords: Int { underWay.withLock { $0 } }

    /// What is recorded from now on. A reader that is too slow misses the oldest; the numbers of the lines show it.
    public func lines() -> AsyncStream<Line> {
        AsyncStream(bufferingPolicy: .bufferingNewest(Self.subscriberLines)) { continuation in
            let id = nextSubscriber.withLock { next in
                defer { next += 1 }
                return next
            }
            state.post { $0.subscribers[id] = continuation }
            continuation.onTermination = { [state] _ in state.post { $0.subscribers[id] = nil } }
        }
    }

    /// Has `observer` given each refusal that is recorded from now on, and `nil` for one that the trail has lost. It is
    /// called in the journal's thread, which it must not hold up; but unlike a reader of ``lines()`` it misses nothing.
    public func observeDenials(_ observer: @escaping @Sendable (Line?) -> Void) {
        state.post { $0.denialObservers.append(observer) }
    }

    private let nextSubscriber = Mutex(0)
    private static let subscriberLines = 4_096

    /// How many records were written and lost so far, by kind, layer, verdict and reason.
    public func counters() async -> NodeCounters {
        await withCheckedContinuation { continuation in
            state.post { continuation.resume(returning: $0.counters()) }
        }
    }

    /// Writes what has come, and returns when it is in the file.
    public func flush() async {
        await withCheckedContinuation { continuation in
            state.post { state in
                state.flush()
                continuation.resume()
            }
        }
    }

    /// Writes what has come and ends the file. Nothing is recorded afterwards.
    public func close() async {
        await withCheckedContinuation { continuation in
            state.post { state in
                state.close()
                continuation.resume()
            }
        }
    }

    /// Confined to the journal's thread.
    private final class State {
        var subscribers: [Int: AsyncStream<Line>.Continuation] = [:]
        var denialObservers: [@Sendable (Line?) -> Void] = []

        private let loop: EventLoop
        private let trail: AuditTrail
        private var counts = NodeCounters()
        private var flushTimer: TimerToken?

        private static let flushNanoseconds: UInt64 = 200_000_000

        init(loop: EventLoop, trail: AuditTrail) {
            self.loop = loop
            self.trail = trail
            // The trail records by itself what it could not write.
            trail.onLossRecord = { [unowned self] in publish($0) }
        }

        func add(_ event: AuditEvent) {
            counts.count(event)
            let entry = trail.append(event)
            if let entry { publish(entry) }
            if event.kind == .dnsDenied || event.kind == .connectionDenied { publishDenial(entry) }
            armFlush()
        }

        private func publish(_ entry: AuditEntry) {
            guard !subscribers.isEmpty else { return }
            let line = Line(sequence: entry.sequence, bytes: entry.line)
            for subscriber in subscribers.values { subscriber.yield(line) }
        }

        private func publishDenial(_ entry: AuditEntry?) {
            guard !denialObservers.isEmpty else { return }
            let line = entry.map { Line(sequence: $0.sequence, bytes: $0.line) }
            for observer in denialObservers { observer(line) }
        }

        func counters() -> NodeCounters {
            var counters = counts
            counters.lostRecords = trail.lostRecords
            return counters
        }

        func flush() {
            trail.flush(now: loop.wallTime())
        }

        func close() {
            if let flushTimer { loop.cancel(flushTimer) }
            trail.close()
            subscribers.values.forEach { $0.finish() }
            subscribers = [:]
        }

        /// What was recorded is in the file a moment later; while nothing is, nothing is done.
        private func armFlush() {
            guard flushTimer == nil else { return }
            flushTimer = loop.schedule(at: loop.now.advanced(byNanoseconds: Self.flushNanoseconds)) { [unowned self] in
                flushTimer = nil
                flush()
            }
        }
    }
}
