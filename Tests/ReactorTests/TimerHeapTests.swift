import NetPrimitives
import Testing

@testable import Reactor

@Suite struct TimerHeapTests {
    @Test(arguments: 1...20)
    func comesOutInOrderWhateverIsCancelled(_ round: Int) {
        var heap = TimerHeap()
        var pending: [(deadline: UInt64, number: Int, token: TimerToken)] = []
        var ran: [Int] = []
        for number in 0..<(round * 20) {
            let deadline = UInt64.random(in: 0..<50)
            let token = heap.add(at: MonotonicTime(nanoseconds: deadline)) { ran.append(number) }
            pending.append((deadline, number, token))
            if number % 3 == 0 {
                heap.cancel(pending.remove(at: .random(in: pending.indices)).token)
            }
        }
        #expect(heap.count == pending.count)
        let end = MonotonicTime(nanoseconds: 50)
        while let action = heap.popDue(at: end, addedBefore: heap.sequenceNow) { action() }
        // Equal deadlines in the order of adding.
        let expected = pending.sorted { ($0.deadline, $0.number) < ($1.deadline, $1.number) }.map(\.number)
        #expect(ran == expected)
        #expect(heap.count == 0)
    }

    @Test func whatIsNotDueOrTooNewStays() {
        var heap = TimerHeap()
        _ = heap.add(at: MonotonicTime(nanoseconds: 10)) {}
        let limit = heap.sequenceNow
        _ = heap.add(at: MonotonicTime(nanoseconds: 5)) {}
        #expect(heap.earliest == MonotonicTime(nanoseconds: 5))
        #expect(heap.popDue(at: MonotonicTime(nanoseconds: 7), addedBefore: limit) == nil)
        #expect(heap.popDue(at: MonotonicTime(nanoseconds: 4), addedBefore: heap.sequenceNow) == nil)
        #expect(heap.popDue(at: MonotonicTime(nanoseconds: 5), addedBefore: heap.sequenceNow) != nil)
    }
}
