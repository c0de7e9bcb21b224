import EgressCore
import Testing

@Suite struct LatencyHistogramTests {
    private func nonzero(_ histogram: LatencyHistogram) -> [Int: UInt64] {
        var found: [Int: UInt64] = [:]
        for index in histogram.counts.indices where histogram.counts[index] > 0 {
            found[index] = histogram.counts[index]
        }
        return found
    }

    @Test func boundsRise() {
        let bounds = LatencyHistogram.bounds
        for index in bounds.indices.dropFirst() { #expect(bounds[index] > bounds[index - 1]) }
        #expect(bounds[0] == 50_000)
        #expect(bounds[bounds.count - 1] == 10_000_000_000)
    }

    @Test(
        arguments: [
            (0, 0), (50_000, 0), (50_001, 1), (100_000, 1), (999_999, 4), (1_000_000, 4), (1_000_001, 5),
            (10_000_000_000, 16),
        ] as [(UInt64, Int)]
    )
    func boundsBelongToTheirBuckets(_ nanoseconds: UInt64, _ bucket: Int) {
        var histogram = LatencyHistogram()
        histogram.count(nanoseconds: nanoseconds)
        #expect(nonzero(histogram) == [bucket: 1])
        #expect((histogram.total, histogram.sum, histogram.beyond) == (1, nanoseconds, 0))
    }

    @Test func countsWhatIsBeyondTheLastBound() {
        var histogram = LatencyHistogram()
        histogram.count(nanoseconds: 10_000_000_001)
        #expect(nonzero(histogram).isEmpty)
        #expect((histogram.total, histogram.beyond) == (1, 1))
    }

    @Test func adds() {
        var one = LatencyHistogram()
        var other = LatencyHistogram()
        one.count(nanoseconds: 1)
        other.count(nanoseconds: 2)
        other.count(nanoseconds: 70_000)
        other.count(nanoseconds: 20_000_000_000)
        one.add(other)
        #expect(nonzero(one) == [0: 2, 1: 1])
        #expect((one.total, one.beyond, one.sum) == (4, 1, 20_000_070_003))
    }

    /// Counters start anew rather than end the process.
    @Test func neverOverflows() {
        var histogram = LatencyHistogram()
        histogram.count(nanoseconds: .max)
        histogram.count(nanoseconds: 2)
        #expect((histogram.total, histogram.sum) == (2, 1))
    }
}
