/// A point in civil time: microseconds since 1970-01-01T00:00:00Z, leap seconds ignored. For policy expiry and records.
public struct WallTime: Hashable, Comparable, Sendable {
    /// Microseconds since the epoch.
    public let microseconds: Int64

    /// A time from microseconds since the epoch.
    public init(microseconds: Int64) { self.microseconds = microseconds }

    /// Earlier before later.
    public static func < (left: Self, right: Self) -> Bool { left.microseconds < right.microseconds }

    /// The time `seconds` later (earlier when negative); saturates.
    public func advanced(bySeconds seconds: Int64) -> WallTime {
        let (product, overflow) = seconds.multipliedReportingOverflow(by: 1_000_000)
        let step = overflow ? (seconds < 0 ? Int64.min : .max) : product
        let (sum, overflowed) = microseconds.addingReportingOverflow(step)
        return WallTime(microseconds: overflowed ? (step < 0 ? .min : .max) : sum)
    }
}

/// A point on the monotonic clock (CLOCK_MONOTONIC): nanoseconds since an arbitrary start. For deadlines and TTLs.
public struct MonotonicTime: Hashable, Comparable, Sendable {
    /// Nanoseconds since the clock's start.
    public let nanoseconds: UInt64

    /// A time from nanoseconds since the clock's start.
    public init(nanoseconds: UInt64) { self.nanoseconds = nanoseconds }

    /// Earlier before later.
    public static func < (left: Self, right: Self) -> Bool { left.nanoseconds < right.nanoseconds }

    /// The time `seconds` later; saturates.
    public func advanced(bySeconds seconds: UInt64) -> MonotonicTime {
        advanced(
            byNanoseconds: seconds.multipliedReportingOverflow(by: 1_000_000_000).overflow
                ? .max : seconds * 1_000_000_000
        )
    }

    /// The time `nanoseconds` later; saturates.
    public func advanced(byNanoseconds step: UInt64) -> MonotonicTime {
        let (sum, overflow) = nanoseconds.addingReportingOverflow(step)
        return MonotonicTime(nanoseconds: overflow ? .max : sum)
    }

    /// Whole seconds from `earlier` to this time, rounded down; 0 when `earlier` is not earlier.
    public func seconds(since earlier: MonotonicTime) -> UInt64 {
        nanoseconds > earlier.nanoseconds ? (nanoseconds - earlier.nanoseconds) / 1_000_000_000 : 0
    }
}
