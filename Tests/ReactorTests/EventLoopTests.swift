import Glibc
import NetPrimitives
import Reactor
import Synchronization
import Testing

/// Calls a closure with what it is told.
private final class Probe: EventSource {
    /// Mostly refers to the loop or to other probes: ``forget()`` at the end.
    var onEvent: (Readiness) -> Void = { _ in }

    func forget() { onEvent = { _ in } }

    override func handle(_ readiness: Readiness) { onEvent(readiness) }
}

@Suite struct EventLoopTests {
    @Test func tellsOfInputAndEnd() throws {
        let loop = try EventLoop()
        let (near, far) = try tcpPair()
        let probe = Probe()
        defer { probe.forget() }
        var told: [Readiness] = []
        probe.onEvent = {
            told.append($0)
            if case .ended = Sockets.receive(near, upTo: 100) { loop.stop() }
        }
        try loop.register(probe, descriptor: near, interest: .readable)
        #expect(Sockets.send(far, [1, 2, 3]) == .bytes(3))
        loop.schedule(at: loop.now.advanced(byNanoseconds: 20_000_000)) { Sockets.close(far) }
        try loop.run()
        #expect(told.first == .readable)
        #expect(told.last?.contains(.peerEnded) == true)
        loop.deregister(probe)
        Sockets.close(near)
    }

    @Test func lateTimersRunBeforeEventsOrAfterThem() throws {
        let loop = try EventLoop()
        let (near, far) = try tcpPair()
        defer { [near, far].forEach(Sockets.close) }
        let probe = Probe()
        defer { probe.forget() }
        var order: [String] = []
        probe.onEvent = { _ in
            order.append("event")
            loop.stop()
        }
        try loop.register(probe, descriptor: near, interest: .readable, edgeTriggered: true)
        #expect(Sockets.send(far, [1]) == .bytes(1))
        loop.schedule(at: loop.now) { order.append("after") }
        loop.schedule(at: loop.now, .beforeEvents) { order.append("before") }
        let cancelled = loop.schedule(at: loop.now, .beforeEvents) { order.append("cancelled") }
        loop.cancel(cancelled)
        try loop.run()
        #expect(order == ["before", "event", "after"])
        loop.deregister(probe)
    }

    /// Between two sources that asked for another turn, a timer may end the registration of the second, and another source
    /// come by its slot.
    @Test func anotherTurnIsForWhoAskedForIt() throws {
        let loop = try EventLoop()
        let pairs = try [tcpPair(), tcpPair()]
        defer { pairs.flatMap { [$0.0, $0.1] }.forEach(Sockets.close) }
        let (first, second, other) = (Probe(), Probe(), Probe())
        defer { [first, second, other].forEach { $0.forget() } }
        var told: [String] = []
        first.onEvent = { readiness in
            guard readiness.isEmpty else { return loop.runSoon(first) }
            told.append("first")
            loop.schedule(at: loop.now, .beforeEvents) {
                loop.deregister(second)
                try? loop.register(other, descriptor: pairs[1].0, interest: [])
                loop.schedule(at: loop.now) { loop.stop() }
            }
        }
        second.onEvent = { $0.isEmpty ? told.append("second") : loop.runSoon(second) }
        other.onEvent = { _ in told.append("other") }
        for (probe, pair) in zip([first, second], pairs) {
            #expect(Sockets.send(pair.1, [1]) == .bytes(1))
            try loop.register(probe, descriptor: pair.0, interest: .readable, edgeTriggered: true)
        }
        try loop.run()
        #expect(told == ["first"])
        loop.deregister(first)
        loop.deregister(other)
    }

    @Test func timersBeforeEventsRunBetweenEventsToo() throws {
        let loop = try EventLoop()
        let pairs = [try tcpPair(), try tcpPair()]
        defer { pairs.flatMap { [$0.0, $0.1] }.forEach(Sockets.close) }
        let probes = [Probe(), Probe()]
        defer { probes.forEach { $0.forget() } }
        var order: [String] = []
        for (probe, (near, far)) in zip(probes, pairs) {
            probe.onEvent = { _ in
                order.append("event")
                guard order.count == 1 else { return loop.stop() }
                // What a thread that is frozen in the middle of a turn sees.
                loop.schedule(at: loop.now, .beforeEvents) { order.append("timer") }
                #expect(loop.mustYield)
            }
            try loop.register(probe, descriptor: near, interest: .readable, edgeTriggered: true)
            #expect(Sockets.send(far, [1]) == .bytes(1))
        }
        #expect(!loop.mustYield)
        try loop.run()
        #expect(order == ["event", "timer", "event"])
        probes.forEach(loop.deregister)
    }

    @Test func timersBeforeEventsWakeTheLoop() throws {
        let loop = try EventLoop()
        let deadline = loop.now.advanced(byNanoseconds: 20_000_000)
        loop.schedule(at: deadline, .beforeEvents) { loop.stop() }
        try loop.run()
        #expect(MonotonicTime.current >= deadline)
    }

    @Test func toldOnceWhenEdgeTriggeredAndAgainWhenAsked() throws {
        let loop = try EventLoop()
        let (near, far) = try tcpPair()
        defer { [near, far].forEach(Sockets.close) }
        let probe = Probe()
        defer { probe.forget() }
        var told: [Readiness] = []
        probe.onEvent = {
            told.append($0)
            if told.count == 1 { loop.runSoon(probe) }
        }
        try loop.register(probe, descriptor: near, interest: .readable, edgeTriggered: true)
        #expect(Sockets.send(far, [1]) == .bytes(1))
        loop.schedule(at: loop.now.advanced(byNanoseconds: 30_000_000)) { loop.stop() }
        try loop.run()
        #expect(told == [.readable, []])
        loop.deregister(probe)
    }

    @Test func whatWasPutOffIsDoneWhenEverybodyWasTold() throws {
        let loop = try EventLoop()
        let pairs = [try tcpPair(), try tcpPair()]
        let probes = [Probe(), Probe()]
        defer { probes.forEach { $0.forget() } }
        var steps: [String] = []
        for (index, probe) in probes.enumerated() {
            probe.onEvent = { readiness in
                _ = Sockets.receive(pairs[index].0, upTo: 100)
                steps.append(readiness.isEmpty ? "again" : "event")
                loop.afterEvents {
                    steps.append("after")
                    loop.afterEvents { steps.append("after that") }
                }
                if !readiness.isEmpty, index == 0 { loop.runSoon(probe) }
            }
            try loop.register(probe, descriptor: pairs[index].0, interest: .readable, edgeTriggered: true)
            #expect(Sockets.send(pairs[index].1, [1]) == .bytes(1))
        }
        // Before the loop runs as well; nothing else wakes it for that.
        loop.afterEvents { steps.append("at once") }
        loop.schedule(at: loop.now.advanced(byNanoseconds: 30_000_000)) { loop.stop() }
        try loop.run()
        let told = ["event", "event", "at once", "after", "after", "after that", "after that"]
        #expect(steps == told + ["again", "after", "after that"])
        probes.forEach(loop.deregister)
        for (near, far) in pairs { [near, far].forEach(Sockets.close) }
    }

    @Test func whatWasPutOffBeforeTheLoopRunsWaitsForNothing() throws {
        let loop = try EventLoop()
        loop.afterEvents { loop.stop() }
        try loop.run()
    }

    @Test func anHeirIsToldWhatComesAndNothingAgain() throws {
        let loop = try EventLoop()
        let (near, far) = try tcpPair()
        let (first, second) = (Probe(), Probe())
        defer { [first, second].forEach { $0.forget() } }
        var told: [(String, Readiness)] = []
        first.onEvent = {
            told.append(("first", $0))
            loop.handOn(first, to: second)
        }
        second.onEvent = { told.append(("second", $0)) }
        try loop.register(first, descriptor: near, interest: .readable, edgeTriggered: true)
        #expect(Sockets.send(far, [1]) == .bytes(1))
        loop.schedule(at: loop.now.advanced(byNanoseconds: 30_000_000)) { loop.stop() }
        try loop.run()
        #expect(told.map(\.0) == ["first"])
        #expect(Sockets.send(far, [2]) == .bytes(1))
        loop.schedule(at: loop.now.advanced(byNanoseconds: 30_000_000)) { loop.stop() }
        try loop.run()
        #expect(told.map(\.0) == ["first", "second"])
        // Another source may have the place of one that was forgotten, and the number of its descriptor.
        loop.forget(second)
        Sockets.close(near)
        let (again, other) = try tcpPair()
        defer { [far, again, other].forEach(Sockets.close) }
        try loop.register(second, descriptor: again, interest: .readable, edgeTriggered: true)
        #expect(Sockets.send(other, [3]) == .bytes(1))
        loop.schedule(at: loop.now.advanced(byNanoseconds: 30_000_000)) { loop.stop() }
        try loop.run()
        #expect(told.map(\.0) == ["first", "second", "second"])
        loop.deregister(second)
    }

    @Test func nobodyIsToldAfterDeregistering() throws {
        // Both sources are ready in the same batch; whichever comes first ends the other one.
        let loop = try EventLoop()
        let pairs = try [tcpPair(), tcpPair()]
        defer {
            pairs.forEach {
                Sockets.close($0.0); Sockets.close($0.1)
            }
        }
        let probes = [Probe(), Probe()]
        defer { probes.forEach { $0.forget() } }
        var told = 0
        for (index, probe) in probes.enumerated() {
            try loop.register(probe, descriptor: pairs[index].0, interest: .readable)
            #expect(Sockets.send(pairs[index].1, [1]) == .bytes(1))
            probe.onEvent = { _ in
                told += 1
                loop.deregister(probes[1 - index])
                loop.runSoon(probe)
                loop.deregister(probe)
            }
        }
        loop.schedule(at: loop.now.advanced(byNanoseconds: 30_000_000)) { loop.stop() }
        try loop.run()
        #expect(told == 1)
    }

    @Test func aSlotUsedAgainDoesNotGetTheOldOnesEvents() throws {
        let loop = try EventLoop()
        let pairs = try [tcpPair(), tcpPair(), tcpPair()]
        defer {
            pairs.forEach {
                Sockets.close($0.0); Sockets.close($0.1)
            }
        }
        let first = Probe(), second = Probe(), late = Probe()
        defer { [first, second, late].forEach { $0.forget() } }
        var lateEvents = 0
        late.onEvent = { _ in lateEvents += 1 }
        for (probe, other, pair) in [(first, second, pairs[0]), (second, first, pairs[1])] {
            try loop.register(probe, descriptor: pair.0, interest: .readable)
            #expect(Sockets.send(pair.1, [1]) == .bytes(1))
            probe.onEvent = { _ in
                // The other's slot, of which an event was fetched, goes to a descriptor that has nothing to tell.
                loop.deregister(other)
                try? loop.register(late, descriptor: pairs[2].0, interest: .readable)
                loop.deregister(probe)
            }
        }
        loop.schedule(at: loop.now.advanced(byNanoseconds: 30_000_000)) { loop.stop() }
        try loop.run()
        #expect(lateEvents == 0)
        loop.deregister(late)
    }

    @Test func interestCanBeChanged() throws {
        let loop = try EventLoop()
        let (near, far) = try tcpPair()
        defer { [near, far].forEach(Sockets.close) }
        let probe = Probe()
        defer { probe.forget() }
        var told = 0
        probe.onEvent = { _ in
            told += 1
            loop.update(probe, interest: [])
        }
        try loop.register(probe, descriptor: near, interest: .writable)
        loop.schedule(at: loop.now.advanced(byNanoseconds: 20_000_000)) { loop.update(probe, interest: .writable) }
        loop.schedule(at: loop.now.advanced(byNanoseconds: 50_000_000)) { loop.stop() }
        try loop.run()
        #expect(told == 2)
        loop.deregister(probe)
    }

    @Test func sourceIsHeldWhileRegistered() throws {
        let loop = try EventLoop()
        let (near, far) = try tcpPair()
        defer { [near, far].forEach(Sockets.close) }
        weak var held: Probe?
        do {
            let probe = Probe()
            defer { probe.forget() }
            held = probe
            try loop.register(probe, descriptor: near, interest: .readable)
        }
        #expect(held != nil)
        if let held { loop.deregister(held) }
        #expect(held == nil)
    }
}

@Suite struct TimerTests {
    @Test func runInOrderAndNotEarly() throws {
        let loop = try EventLoop()
        var order: [Int] = []
        var early = 0
        let start = loop.now
        for (index, milliseconds) in [30, 10, 20, 10, 0].enumerated() {
            let deadline = start.advanced(byNanoseconds: UInt64(milliseconds) * 1_000_000)
            loop.schedule(at: deadline) {
                if loop.now < deadline { early += 1 }
                order.append(index)
            }
        }
        loop.schedule(at: start.advanced(byNanoseconds: 31_000_000)) { loop.stop() }
        try loop.run()
        #expect(order == [4, 1, 3, 2, 0])
        #expect(early == 0)
    }

    @Test func cancelledOnesDoNotRun() throws {
        let loop = try EventLoop()
        var ran: Set<Int> = []
        var generator = SystemRandomNumberGenerator()
        let tokens = (0..<500).map { index in
            let delay = UInt64.random(in: 0..<20_000_000, using: &generator)
            return loop.schedule(at: loop.now.advanced(byNanoseconds: delay)) { ran.insert(index) }
        }
        let cancelled = Set((0..<500).filter { _ in Bool.random() })
        for index in cancelled { loop.cancel(tokens[index]) }
        for index in cancelled { loop.cancel(tokens[index]) }  // once more does nothing
        loop.schedule(at: loop.now.advanced(byNanoseconds: 25_000_000)) { loop.stop() }
        try loop.run()
        #expect(ran == Set(0..<500).subtracting(cancelled))
    }

    @Test func aTokenThatHasRunCancelsNobodyElse() throws {
        let loop = try EventLoop()
        var later = false
        let first = loop.schedule(at: loop.now) {}
        loop.schedule(at: loop.now) {
            loop.schedule(at: loop.now) { later = true }  // in the slot of `first`
            loop.cancel(first)
            loop.schedule(at: loop.now.advanced(byNanoseconds: 5_000_000)) { loop.stop() }
        }
        try loop.run()
        #expect(later)
    }

    @Test func oneThatSetsItselfAnewLeavesRoomForDescriptors() throws {
        let loop = try EventLoop()
        let (near, far) = try tcpPair()
        defer { [near, far].forEach(Sockets.close) }
        let probe = Probe()
        defer { probe.forget() }
        probe.onEvent = { _ in loop.stop() }
        try loop.register(probe, descriptor: near, interest: .readable)
        #expect(Sockets.send(far, [1]) == .bytes(1))
        var pending: TimerToken?
        func again() { pending = loop.schedule(at: loop.now) { again() } }
        again()
        try loop.run()
        if let pending { loop.cancel(pending) }
        loop.deregister(probe)
    }
}

@Suite struct MailboxTests {
    @Test func messagesFromAnotherThreadRunInOrder() throws {
        let loop = try EventLoop()
        final class Log {
            var numbers: [Int] = []
        }
        let log = Log()
        let bound = LoopBound(log, to: loop)
        let stopper = LoopBound(loop, to: loop)
        let thread = TestThread {
            for number in 0..<10_000 { bound.post { $0.numbers.append(number) } }
            stopper.post { $0.stop() }
        }
        try loop.run()
        thread.join()
        #expect(log.numbers == Array(0..<10_000))
    }

    @Test func refusedWhenTheLoopIsGone() throws {
        var loop: EventLoop? = try EventLoop()
        let mailbox = try #require(loop?.mailbox)
        final class Canary: Sendable {}
        weak var captured: Canary?
        do {
            let canary = Canary()
            captured = canary
            #expect(mailbox.post { _ = canary })
        }
        #expect(captured != nil)
        loop = nil
        #expect(captured == nil)
        #expect(!mailbox.post {})
    }

    @Test func stopBeforeRunningIsNotForgotten() throws {
        let loop = try EventLoop()
        loop.stop()
        try loop.run()
        // And once only.
        loop.schedule(at: loop.now) { loop.stop() }
        try loop.run()
    }
}

/// A thread that is joined; Foundation's cannot be.
final class TestThread {
    private var thread = pthread_t()

    private final class Body {
        let run: @Sendable () -> Void
        init(_ run: @escaping @Sendable () -> Void) { self.run = run }
    }

    init(_ run: @escaping @Sendable () -> Void) {
        let body = Unmanaged.passRetained(Body(run)).toOpaque()
        pthread_create(
            &thread,
            nil,
            { pointer in
                Unmanaged<Body>.fromOpaque(pointer!).takeRetainedValue().run()
                return nil
            },
            body
        )
    }

    func join() { pthread_join(thread, nil) }
}
