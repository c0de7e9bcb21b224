public import EgressCore

/// How long programs in sandboxes waited for what is on their way out, over all sandboxes of an event loop.
public struct LatencyCounts: Sendable {
    /// What became of a program's DNS query. The words are the labels of the metric: few, and ours alone.
    public enum AnswerOutcome: String, Sendable, CaseIterable {
        /// Answered from the cache.
        case cached
        /// Answered by a server outside, for this query or one before it that asked the same.
        case upstream
        /// Answered with what the process knows by itself, such as the name of a pinned address.
        case local
        /// The policy refuses it.
        case refused
        /// No server answered, the kernel would not pin, or too many queries waited.
        case failed

        /// Where its histogram is.
        fileprivate var place: Int {
            switch self {
            case .cached: 0
            case .upstream: 1
            case .local: 2
            case .refused: 3
            case .failed: 4
            }
        }
    }

    /// From the wake-up that found a query to its answer, by what became of it.
    public private(set) var answers = Answers()
    /// The kernel's transaction that pins addresses, before the answer with them is released.
    public private(set) var pins = LatencyHistogram()
    /// From the wake-up that found a connection to that of its server: what the client takes to show what it wants, the
    /// judgement, look-ups if any, and dialling.
    public private(set) var connections = LatencyHistogram()

    /// Nothing counted yet.
    public init() {}

    /// Adds what was counted on another event loop.
    public mutating func add(_ other: LatencyCounts) {
        answers.add(other.answers)
        pins.add(other.pins)
        connections.add(other.connections)
    }

    /// A histogram for each outcome.
    public struct Answers: Sendable {
        private var histograms = InlineArray<5, LatencyHistogram>(repeating: LatencyHistogram())

        /// That of `outcome`.
        public subscript(outcome: AnswerOutcome) -> LatencyHistogram { histograms[outcome.place] }

        fileprivate mutating func count(_ outcome: AnswerOutcome, nanoseconds: UInt64) {
            histograms[outcome.place].count(nanoseconds: nanoseconds)
        }

        fileprivate mutating func add(_ other: Answers) {
            for place in histograms.indices { histograms[place].add(other.histograms[place]) }
        }
    }

    mutating func countAnswer(_ outcome: AnswerOutcome, nanoseconds: UInt64) {
        answers.count(outcome, nanoseconds: nanoseconds)
    }

    mutating func countPin(nanoseconds: UInt64) {
        pins.count(nanoseconds: nanoseconds)
    }

    mutating func countConnection(nanoseconds: UInt64) {
        connections.count(nanoseconds: nanoseconds)
    }
}
