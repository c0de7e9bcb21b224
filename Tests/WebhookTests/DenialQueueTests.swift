import Testing

@testable import Webhook

@Suite struct DenialQueueTests {
    private func line(_ number: Int) -> [UInt8] { Array("{\"seq\":\(number)}".utf8) }

    private func queue(_ count: Int) -> DenialQueue {
        var queue = DenialQueue()
        for number in 0..<count { queue.offer(line(number)) }
        return queue
    }

    @Test func givesWhatCameInItsOrder() {
        var queue = queue(1_200)
        var told: [[UInt8]] = []
        var sizes: [Int] = []
        while let batch = queue.take() {
            told += batch.lines
            sizes.append(batch.lines.count)
            #expect(batch.lost == 0)
            queue.deliver()
        }
        #expect(told == (0..<1_200).map(line))
        #expect(sizes == [500, 500, 200])
        #expect((queue.count, queue.counters.queued, queue.counters.delivered) == (0, 0, 1_200))
    }

    /// A batch that may have arrived is told again as it was, whatever came meanwhile.
    @Test func keepsTheBatchInHandAsItIs() {
        var queue = queue(3)
        let batch = queue.take()
        queue.offer(line(3))
        queue.offer(nil)
        queue.fail()
        #expect(queue.take() == batch)
        queue.deliver()
        #expect(queue.take() == DenialQueue.Batch(lines: [line(3)], lost: 1))
        #expect(queue.counters.failures == 1)
    }

    @Test func countsWhatDoesNotFitAndTellsItOnce() {
        var queue = queue(DenialQueue.capacity + 7)
        #expect((queue.count, queue.counters.lost) == (DenialQueue.capacity, 7))
        #expect(queue.take()?.lost == 7)
        queue.offer(line(0))
        queue.deliver()
        // There is room again, and the one that came before there was is told next.
        queue.offer(line(1))
        #expect(queue.take()?.lost == 1)
        queue.deliver()
        #expect(queue.take()?.lost == 0)
        #expect(queue.counters.lost == 8)
    }

    @Test func whatIsGivenUpIsLost() {
        var queue = queue(DenialQueue.capacity + 2)
        #expect(queue.take()?.lost == 2)
        queue.giveUp()
        let next = queue.take()
        #expect(next?.lines.first == line(500))
        #expect(next?.lost == 502)
        #expect(queue.counters.lost == 502)
        #expect(queue.counters.queued == DenialQueue.capacity - 500)
    }

    @Test func nothingInHandIsNothingToSettle() {
        var queue = DenialQueue()
        #expect(queue.take() == nil)
        queue.deliver()
        queue.giveUp()
        queue.offer(nil)
        #expect(queue.take() == nil)
        #expect(queue.counters.lost == 1)
    }

    @Test func bodyIsJSON() {
        let batch = DenialQueue.Batch(lines: [line(1), line(2)], lost: 3)
        let body = String(decoding: batch.body(node: Array("\"n\"".utf8)), as: UTF8.self)
        #expect(body == #"{"node":"n","lost":3,"records":[{"seq":1},{"seq":2}]}"#)
    }
}
