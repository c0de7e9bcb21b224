import Testing

@testable import Webhook

@Suite struct BackoffTests {
    private func waits(_ chance: Double) -> [Duration] {
        var backoff = Backoff()
        return (0..<10).map { _ in backoff.wait(chance: chance) }
    }

    @Test func doublesUpToAMinute() {
        let most = waits(1)
        #expect(most.prefix(3) == [.milliseconds(500), .seconds(1), .seconds(2)])
        #expect(most.last == .seconds(60))
    }

    @Test func leavesHalfToChance() {
        #expect(waits(0).map { $0 * 2 } == waits(1))
    }
}
