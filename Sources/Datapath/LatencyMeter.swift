import NetPrimitives
import Reactor

/// Counts how long things took on one event loop, for all sandboxes on it. Confined to the loop's thread: no lock, no
/// allocation, and one reading of the clock for each thing counted (the loop's own time stands still within a turn, which
/// is what most of these things last).
public final class LatencyMeter {
    /// What was counted so far.
    public private(set) var counts = LatencyCounts()

    /// A meter that has counted nothing.
    public init() {}

    func countAnswer(_ outcome: LatencyCounts.AnswerOutcome, since start: MonotonicTime) {
        counts.countAnswer(outcome, nanoseconds: Self.nanoseconds(since: start))
    }

    func countPin(since start: MonotonicTime) {
        counts.countPin(nanoseconds: Self.nanoseconds(since: start))
    }

    func countConnection(since start: MonotonicTime) {
        counts.countConnection(nanoseconds: Self.nanoseconds(since: start))
    }

    private static func nanoseconds(since start: MonotonicTime) -> UInt64 {
        let now = MonotonicTime.current.nanoseconds
        return now > start.nanoseconds ? now - start.nanoseconds : 0
    }
}
