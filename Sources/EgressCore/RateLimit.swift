public import NetPrimitives

/// How often something may happen: so many times a second, and so many times at once after a quiet time.
public struct RateLimit: Hashable, Sendable {
    /// Times a second.
    public let perSecond: UInt64
    /// Times at once.
    public let burst: UInt64

    /// What is left, in billionths, so that whole nanoseconds of quiet are counted exactly.
    private var left: UInt64
    private var updatedAt: MonotonicTime?

    private static let unit: UInt64 = 1_000_000_000

    /// A limit that has not been used. `perSecond` and `burst` are below a billion.
    public init(perSecond: UInt64, burst: UInt64) {
        self.perSecond = perSecond
        self.burst = burst
        self.left = burst * Self.unit
    }

    /// Whether it may happen now; if so it is counted.
    public mutating func admits(at now: MonotonicTime) -> Bool {
        if let updatedAt, now > updatedAt {
            let quiet = now.nanoseconds - updatedAt.nanoseconds
            let (earned, overflow) = quiet.multipliedReportingOverflow(by: perSecond)
            let full = burst * Self.unit
            left = overflow || earned >= full - left ? full : left + earned
        }
        updatedAt = max(updatedAt ?? now, now)
        guard left >= Self.unit else { return false }
        left -= Self.unit
        return true
    }
}
