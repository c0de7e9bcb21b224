import NetPrimitives

/// Addresses as ascending intervals that neither overlap nor touch: what an interval set of the kernel holds.
struct IntervalSet: Hashable, Sendable {
    let intervals: [ClosedRange<IPAddress>]

    /// The union of `intervals`, in any order.
    init(_ intervals: [ClosedRange<IPAddress>]) {
        var result: [ClosedRange<IPAddress>] = []
        for interval in intervals.sorted(by: { $0.lowerBound < $1.lowerBound }) {
            precondition(
                interval.lowerBound.family == interval.upperBound.family,
                "an interval lies within one address family"
            )
            if let last = result.last, last.upperBound.family == interval.lowerBound.family,
                last.upperBound.next.map({ interval.lowerBound <= $0 }) ?? true
            {
                result[result.count - 1] = last.lowerBound...max(last.upperBound, interval.upperBound)
            } else {
                result.append(interval)
            }
        }
        self.intervals = result
    }

    /// The intervals that `other` has not, and those that it has and this set has not.
    func changes(to other: IntervalSet) -> (gone: [ClosedRange<IPAddress>], new: [ClosedRange<IPAddress>]) {
        var gone: [ClosedRange<IPAddress>] = []
        var new: [ClosedRange<IPAddress>] = []
        var left = intervals[...]
        var right = other.intervals[...]
        while let old = left.first, let wanted = right.first {
            if old == wanted {
                left.removeFirst()
                right.removeFirst()
            } else if (old.lowerBound, old.upperBound) < (wanted.lowerBound, wanted.upperBound) {
                gone.append(left.removeFirst())
            } else {
                new.append(right.removeFirst())
            }
        }
        return (gone + left, new + right)
    }
}
