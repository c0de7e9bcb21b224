import EgressCore
import NetPrimitives
import Testing

@Suite struct RateLimitTests {
    /// What a limit says at each of some moments, in milliseconds.
    private func admitted(_ perSecond: UInt64, _ burst: UInt64, at moments: [UInt64]) -> [Bool] {
        var limit = RateLimit(perSecond: perSecond, burst: burst)
        return moments.map { milliseconds in
            limit.admits(at: MonotonicTime(nanoseconds: 5_000_000_000 + milliseconds * 1_000_000))
        }
    }

    @Test func aBurstAndThenTheRate() {
        #expect(
            admitted(10, 3, at: [0, 0, 0, 0, 0, 99, 100, 199, 200])
                == [true, true, true, false, false, false, true, false, true]
        )
    }

    @Test func aLongQuietTimeIsWorthABurst() {
        let late: UInt64 = 10_000_000_000
        #expect(
            admitted(10, 3, at: [0, 0, 0, 0, late, late, late, late])
                == [true, true, true, false, true, true, true, false]
        )
    }

    @Test func aClockThatStandsStillEarnsNothing() {
        #expect(admitted(1_000, 1, at: [10, 5, 10, 11]) == [true, false, false, true])
    }
}
