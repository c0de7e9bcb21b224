/// Refusals that wait to be told, oldest first, and what is known of those that were. It has no thread and no clock.
///
///     offered ─▶ waiting ─▶ batch in hand ─▶ delivered
///        │                     ├─ told again, the same, until it is
///        ▼                     ▼
///      lost: no room        given up: lost as well
///
/// What is lost is told with the next batch. One batch is in hand at a time, so that what arrives is in order.
struct DenialQueue: Sendable {
    /// Records that are told together.
    struct Batch: Hashable, Sendable {
        /// Lines of the trail, in its order.
        let lines: [[UInt8]]
        /// How many were lost since the batch before it.
        let lost: UInt64
    }

    /// The most records that wait, those of the batch in hand included.
    static let capacity = 10_000
    /// The most records of a batch.
    static let batchSize = 500

    /// What was counted so far.
    private(set) var counters = WebhookCounters()
    private var waiting: [[UInt8]] = []
    private var inHand: Batch?
    /// Lost, and in no batch yet.
    private var untold: UInt64 = 0

    /// How many records wait, those of the batch in hand included.
    var count: Int { waiting.count }

    /// Takes a record; `nil` for one that was lost before it could be.
    mutating func offer(_ line: [UInt8]?) {
        guard let line, waiting.count < Self.capacity else { return lose(1) }
        waiting.append(line)
        counters.queued = waiting.count
    }

    private mutating func lose(_ count: UInt64) {
        untold += count
        counters.lost += count
    }

    /// The batch in hand, or else the next one; `nil` when nothing waits.
    mutating func take() -> Batch? {
        if let inHand { return inHand }
        guard !waiting.isEmpty else { return nil }
        let batch = Batch(lines: Array(waiting.prefix(Self.batchSize)), lost: untold)
        untold = 0
        inHand = batch
        return batch
    }

    /// Telling the batch in hand failed; it stays there.
    mutating func fail() {
        counters.failures += 1
    }

    /// The batch in hand has arrived.
    mutating func deliver() {
        counters.delivered += UInt64(drop()?.lines.count ?? 0)
    }

    /// The batch in hand is told no more.
    mutating func giveUp() {
        guard let batch = drop() else { return }
        // What was lost before is untold again, and counted already.
        untold += batch.lost
        lose(UInt64(batch.lines.count))
    }

    private mutating func drop() -> Batch? {
        guard let batch = inHand else { return nil }
        inHand = nil
        waiting.removeFirst(batch.lines.count)
        counters.queued = waiting.count
        return batch
    }
}

extension DenialQueue.Batch {
    /// `{"node": …, "lost": …, "records": […]}`. `node` is a JSON string already.
    func body(node: [UInt8]) -> [UInt8] {
        var body = Array("{\"node\":".utf8) + node + Array(",\"lost\":\(lost),\"records\":[".utf8)
        body.reserveCapacity(body.count + lines.reduce(2) { $0 + $1.count + 1 })
        for (index, line) in lines.enumerated() {
            if index > 0 { body.append(UInt8(ascii: ",")) }
            body += line
        }
        body += Array("]}".utf8)
        return body
    }
}
