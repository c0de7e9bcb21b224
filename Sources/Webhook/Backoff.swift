/// How long to wait before something is tried again: twice as long after each failure, up to a minute. Half of it is left
/// to chance, so that many nodes do not come back to a server all at once.
struct Backoff {
    private static let first = Duration.milliseconds(500)
    private static let longest = Duration.seconds(60)

    private var next = Backoff.first

    /// The wait after another failure. `chance` is a number of 0...1.
    mutating func wait(chance: Double = .random(in: 0...1)) -> Duration {
        defer { next = min(next * 2, Self.longest) }
        return next * (0.5 + chance / 2)
    }
}
