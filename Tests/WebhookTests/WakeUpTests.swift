import Testing

@testable import Webhook

// What waits for a turn here stands in line with all other tests, some of which block a thread.
@Suite(.timeLimit(.minutes(5))) struct WakeUpTests {
    @Test func keepsASignalThatCameBefore() async {
        let wakeUp = WakeUp()
        wakeUp.signal()
        wakeUp.signal()
        await wakeUp.wait()
    }

    @Test func endsAtTheDeadline() async {
        let start = ContinuousClock.now
        await WakeUp().wait(until: start + .milliseconds(30))
        #expect(ContinuousClock.now - start >= .milliseconds(30))
    }

    @Test func endsWithTheTask() async {
        let wakeUp = WakeUp()
        let task = Task { await wakeUp.wait() }
        task.cancel()
        await task.value
    }

    @Test func wakesWhoWaits() async {
        let wakeUp = WakeUp()
        await withTaskGroup { group in
            group.addTask {
                for _ in 0..<100 { await wakeUp.wait() }
                return true
            }
            group.addTask {
                while !Task.isCancelled {
                    wakeUp.signal()
                    await Task.yield()
                }
                return false
            }
            let first = await group.next()
            #expect(first == true)
            group.cancelAll()
        }
    }
}
