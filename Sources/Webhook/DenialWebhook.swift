import FoundationEssentials
public import Logging
public import Sandboxes
import Synchronization

/// Tells a server of what is refused in a node's sandboxes: batches of records, as they stand in the audit trail, posted
/// as `{"node": …, "lost": …, "records": […]}`.
///
///     journal's thread ─▶ queue, bounded ─▶ a second passes, or 500 wait ─▶ POST ─▶ 2xx: the next batch
///                                                                            ▲  └─▶ else: wait, longer each time
///                                                                            └──────────┘
///
/// Whoever records never waits: what the queue has no room for is counted, and told with the next batch. A batch that may
/// have arrived is sent again as it was; the records' numbers show it. What is still queued when the process ends is in
/// the trail, and is told no more.
public final class DenialWebhook: Sendable {
    private struct State {
        var queue = DenialQueue()
        var urgency = Urgency.none
        var task: Task<Void, Never>?
    }

    /// How near the end is.
    private enum Urgency {
        case none
        /// Records do not gather any more.
        case atOnce
        /// What is queued is told, and then nothing more.
        case last
    }

    /// For so long records gather.
    private static let gathering = Duration.seconds(1)
    /// A batch that the server says is wrong is tried so often; another answer may come of another version of it.
    private static let triesOfRefused = 3

    private let endpoint: WebhookEndpoint
    private let node: [UInt8]
    private let log: Logger
    private let state = Mutex(State())
    private let wakeUp = WakeUp()
    /// Signalled when nothing is queued any more.
    private let drained = WakeUp()

    /// A webhook that tells nothing yet. `node` is this machine's name.
    public init(_ endpoint: WebhookEndpoint, node: String, log: Logger) {
        self.endpoint = endpoint
        self.node = (try? Array(JSONEncoder().encode(node))) ?? Array("\"\"".utf8)
        self.log = log
    }

    /// What became of the records so far.
    public var counters: WebhookCounters { state.withLock { $0.queue.counters } }

    /// Begins to tell what is refused from now on. To be called once.
    public func start(on journal: NodeJournal) {
        journal.observeDenials { [weak self] line in self?.offer(line?.bytes) }
        let task = Task { await run() }
        state.withLock { $0.task = task }
    }

    /// Tells what is queued, and from now on each record at once. Returns when nothing is queued, or after `patience`.
    public func hurry(within patience: Duration = .seconds(2)) async {
        state.withLock { $0.urgency = .atOnce }
        wakeUp.signal()
        await drained.wait(until: .now + patience) { counters.queued > 0 }
    }

    /// Tells what is queued, for `patience` at most, and then nothing more. After the journal was closed, so that all of
    /// it is queued.
    public func stop(within patience: Duration = .seconds(2)) async {
        let task = state.withLock { state in
            state.urgency = .last
            return state.task
        }
        guard let task else { return }
        wakeUp.signal()
        let limit = Task {
            try await Task.sleep(for: patience)
            task.cancel()
        }
        await task.value
        limit.cancel()
        let left = counters.queued
        if left > 0 { log.warning("denial webhook: \(left) records were not told; they are in the audit trail") }
    }

    /// In the journal's thread.
    private func offer(_ line: [UInt8]?) {
        let count = state.withLock { state in
            state.queue.offer(line)
            return state.queue.count
        }
        // Only these counts make a difference to whoever waits.
        if count == 1 || count == DenialQueue.batchSize { wakeUp.signal() }
    }
}

// MARK: - Telling

extension DenialWebhook {
    private func run() async {
        let client = WebhookClient(endpoint)
        while await waitForBatch(), let batch = state.withLock({ $0.queue.take() }) {
            await tell(batch, through: client)
            if counters.queued == 0 { drained.signal() }
        }
        client.close()
    }

    /// Returns `false` when nothing will be told any more.
    private func waitForBatch() async -> Bool {
        var due: ContinuousClock.Instant?
        while !Task.isCancelled {
            let (count, urgency) = state.withLock { ($0.queue.count, $0.urgency) }
            if count >= DenialQueue.batchSize || urgency == .last { return count > 0 }
            if count > 0 {
                guard urgency == .none else { return true }
                let now = ContinuousClock.now
                if let due, due <= now { return true }
                due = due ?? now + Self.gathering
            }
            await wakeUp.wait(until: due)
        }
        return false
    }

    /// Posts a batch until it has arrived, or the server has refused it often enough.
    private func tell(_ batch: DenialQueue.Batch, through client: WebhookClient) async {
        let body = batch.body(node: node)
        var backoff = Backoff()
        var failures = 0
        var refusals = 0
        while !Task.isCancelled {
            let problem: String
            switch await client.post(body) {
            case .delivered:
                state.withLock { $0.queue.deliver() }
                if failures > 0 { log.info("denial webhook: \(endpoint.origin) takes records again") }
                return
            case .refused(let reason):
                refusals += 1
                problem = reason
            case .failed(let reason):
                problem = reason
            }
            guard !Task.isCancelled else { return }
            state.withLock { $0.queue.fail() }
            guard refusals < Self.triesOfRefused else {
                log.error("denial webhook: \(endpoint.origin) refuses \(batch.lines.count) records: \(problem)")
                return state.withLock { $0.queue.giveUp() }
            }
            failures += 1
            // Once for an outage; /metrics counts them all.
            log.log(level: failures == 1 ? .warning : .debug, "denial webhook: \(endpoint.origin): \(problem)")
            await pause(for: backoff.wait())
        }
    }

    /// Waits. When the end comes meanwhile, it is the time for another try.
    private func pause(for duration: Duration) async {
        let urgency = state.withLock { $0.urgency }
        await wakeUp.wait(until: .now + duration) { state.withLock { $0.urgency } == urgency }
    }
}
