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

    /// Bounds on the records that wait to be written.
    public struct Limits: Hashable, Sendable {
        /// The most that wait at once; further ones are lost. Some 500 bytes each.
        public var maximumRecords = 200_000
        /// How many of one sandbox are taken a second while more than half of those wait.
        public var recordsPerSecondWhenLate = 200

        /// The defaults.
        public init() {}
    }

    private let state: LoopBound<State>
    private let limits: Limits
    /// What was recorded. Not the journal's thread's own: who asks must not wait for the disk.
    private let counts = Counts()
    /// Records on their way to the journal's thread.
    private let underWay = Mutex(0)
    private let overflow = Mutex<UInt64>(0)
    /// Refusals that never came to the journal's thread, and that its observers have not been told of.
    private let missedDenials = Mutex(0)

    /// Opens the trail in `directory` and starts the thread.
    public init(directory: String, limits: AuditTrail.Limits, queue: Limits = Limits()) throws {
        self.limits = queue
        let started = Handover<Result<LoopBound<State>, any Error>>()
        DetachedThread.start { [counts] in
            do {
                let loop = try EventLoop()
                let trail = try AuditTrail(directory: directory, limits: limits)
                let state = State(loop: loop, trail: trail, counts: counts)
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
            guard count + events.count <= limits.maximumRecords else { return false }
            count += events.count
            return true
        }
        guard isAccepted else {
            overflow.withLock { $0 += events.reduce(0) { $0 + $1.weightWhenLost } }
            events.forEach(miss)
            return
        }
        state.post { [self] state in
            underWay.withLock { $0 -= events.count }
            var lost = overflow.withLock { lost in
                defer { lost = 0 }
                return lost
            }
            let missed = missedDenials.withLock { missed in
                defer { missed = 0 }
                return missed
            }
            state.missDenials(missed)
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

    /// Where event loops put what their sandboxes record.
    public var outlet: RecordOutlet {
        RecordOutlet(
            deliver: { [self] in record($0) },
            miss: { [self] in miss($0) },
            share: { [self] in
                queuedRecords > limits.maximumRecords / 2 ? limits.recordsPerSecondWhenLate : nil
            }
        )
    }

    /// Counts what is recorded nowhere else.
    private func miss(_ event: AuditEvent) {
        counts.value.withLock { counters in
            counters.count(event)
            counters.lostRecords += 1
        }
        if event.isDenial { missedDenials.withLock { $0 += 1 } }
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
    public func counters() -> NodeCounters { counts.value.withLock { $0 } }

    /// Shared with the journal's thread.
    private final class Counts: Sendable {
        let value = Mutex(NodeCounters())
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
        private let counts: Counts
        /// Of the trail's lost records, how many are counted.
        private var countedLosses: UInt64 = 0
        private var flushTimer: TimerToken?

        private static let flushNanoseconds: UInt64 = 200_000_000

        init(loop: EventLoop, trail: AuditTrail, counts: Counts) {
            self.loop = loop
            self.trail = trail
            self.counts = counts
            // The trail records by itself what it could not write.
            trail.onLossRecord = { [unowned self] in publish($0) }
        }

        func add(_ event: AuditEvent) {
            let entry = trail.append(event)
            let losses = trail.lostRecords
            counts.value.withLock { counters in
                counters.count(event)
                counters.lostRecords += losses - countedLosses
            }
            countedLosses = losses
            if let entry { publish(entry) }
            if event.isDenial { publishDenial(entry) }
            armFlush()
        }

        private func publish(_ entry: AuditEntry) {
            guard !subscribers.isEmpty else { return }
            let line = Line(sequence: entry.sequence, bytes: entry.line)
            for subscriber in subscribers.values { subscriber.yield(line) }
        }

        func missDenials(_ count: Int) {
            for _ in 0..<count { publishDenial(nil) }
        }

        private func publishDenial(_ entry: AuditEntry?) {
            guard !denialObservers.isEmpty else { return }
            let line = entry.map { Line(sequence: $0.sequence, bytes: $0.line) }
            for observer in denialObservers { observer(line) }
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

extension AuditEvent {
    /// Whether observers of refusals want it: they are told of questions, too, which are refusals unless somebody answers.
    fileprivate var isDenial: Bool { [.dnsDenied, .connectionDenied, .questionAsked].contains(kind) }
}
