import Glibc
import NetPrimitives
import Testing

@testable import Reactor

/// In which state a relay gets its sockets.
enum Start: CaseIterable {
    /// Registered with no loop.
    case unwatched
    /// Registered, and nothing was told yet.
    case watched
    /// Registered, and what there was to tell has been told: it will not be told again.
    case told
}

private final class Keeper: KeepingSource {
    override func handle(_ readiness: Readiness) { told.formUnion(readiness) }
}

/// Sees in every turn how much relays have moved since the last.
private final class Witness: EventSource {
    private let count: () -> [UInt64]
    private(set) var last: [UInt64] = []
    /// The most in a turn.
    private(set) var most: UInt64 = 0

    init(_ count: @escaping () -> [UInt64]) { self.count = count }

    override func handle(_ readiness: Readiness) {
        let counts = count()
        if !last.isEmpty { most = max(most, counts.reduce(0, +) - last.reduce(0, +)) }
        last = counts
    }
}

/// A relay between two peers: `client ─ downstream │ relay │ upstream ─ server`.
private final class Bench {
    let loop: EventLoop
    let client: Peer
    let server: Peer
    private(set) var result: RelayResult?
    private(set) var closeCount = 0
    private(set) var relay: Relay!

    init(
        _ loop: EventLoop,
        _ start: Start,
        toDownstream: [UInt8] = [],
        toUpstream: [UInt8] = [],
        idleSeconds: UInt64 = 60,
        beforeStart: (Peer, Peer) -> Void = { _, _ in }
    ) throws {
        self.loop = loop
        let (clientEnd, downstream) = try tcpPair()
        let (serverEnd, upstream) = try tcpPair()
        client = try Peer(clientEnd, loop: loop)
        server = try Peer(serverEnd, loop: loop)
        beforeStart(client, server)
        var keepers: (downstream: KeepingSource, upstream: KeepingSource)?
        if start != .unwatched {
            let (near, far) = (Keeper(), Keeper())
            try loop.register(near, descriptor: downstream, interest: [.readable, .urgent], edgeTriggered: true)
            try loop.register(
                far,
                descriptor: upstream,
                interest: [.readable, .writable, .urgent],
                edgeTriggered: true
            )
            Sockets.setNoDelay(downstream)
            keepers = (near, far)
        }
        if start == .told {
            loop.schedule(at: loop.now.advanced(byNanoseconds: 50_000_000)) { loop.stop() }
            try loop.run()
        }
        relay = Relay(
            loop: loop,
            downstream: downstream,
            upstream: upstream,
            initialToDownstream: toDownstream,
            initialToUpstream: toUpstream,
            idleSeconds: idleSeconds
        ) { [weak self] in
            self?.result = $0
            self?.closeCount += 1
        }
        if let keepers { relay.start(takingOver: keepers) } else { relay.start() }
    }

    deinit {
        relay.abort()
        client.close()
        server.close()
    }
}

extension EventLoop {
    /// Runs until nothing of what `peer` says has moved for a while: every buffer on the way is full.
    fileprivate func runUntilBlocked(_ peer: Peer) throws {
        var last = -1
        while peer.sentCount != last {
            last = peer.sentCount
            schedule(at: now.advanced(byNanoseconds: 300_000_000)) { self.stop() }
            try run()
        }
        #expect(peer.isOutputBlocked)
    }
}

private func bytes(_ text: String) -> [UInt8] { Array(text.utf8) }

@Suite struct RelayTests {
    let loop: EventLoop

    init() throws { loop = try EventLoop() }

    @Test(arguments: Start.allCases)
    func carriesBothWaysAndEnds(_ start: Start) throws {
        let bench = try Bench(loop, start)
        bench.client.say(bytes("ping"))
        #expect(try loop.run { bench.server.heard == bytes("ping") })
        bench.server.say(bytes("pong"))
        #expect(try loop.run { bench.client.heard == bytes("pong") })
        bench.client.say([], thenEnd: true)
        bench.server.say([], thenEnd: true)
        #expect(try loop.run { bench.result != nil && bench.client.ending != nil && bench.server.ending != nil })
        #expect(bench.result == RelayResult(bytesUp: 4, bytesDown: 4, end: .finished))
        #expect(bench.client.ending == .ended)
        #expect(bench.server.ending == .ended)
        #expect(bench.closeCount == 1)
    }

    @Test func initialBytesComeFirst() throws {
        let (greeting, command) = (bytes("220 "), bytes("EH"))
        let bench = try Bench(loop, .unwatched, toDownstream: greeting, toUpstream: command) { client, server in
            client.say(bytes("LO"), thenEnd: true)
            server.say(bytes("mail"), thenEnd: true)
        }
        #expect(try loop.run { bench.result != nil && bench.client.ending != nil && bench.server.ending != nil })
        #expect(bench.client.heard == bytes("220 mail"))
        #expect(bench.server.heard == bytes("EHLO"))
        #expect(bench.result == RelayResult(bytesUp: 4, bytesDown: 8, end: .finished))
    }

    @Test(arguments: Start.allCases)
    func whatWasEndedBeforeTheStartIsCarried(_ start: Start) throws {
        let bench = try Bench(loop, start) { client, server in
            client.say(bytes("a"), thenEnd: true)
            server.say(bytes("b"), thenEnd: true)
        }
        #expect(try loop.run { bench.result != nil })
        #expect(bench.result == RelayResult(bytesUp: 1, bytesDown: 1, end: .finished))
    }

    @Test(arguments: Start.allCases)
    func aClientThatEndedStillHears(_ start: Start) throws {
        let bench = try Bench(loop, start)
        bench.client.say(bytes("request"), thenEnd: true)
        #expect(try loop.run { bench.server.ending == .ended })
        #expect(bench.server.heard == bytes("request"))
        #expect(bench.result == nil)
        var stream = ByteStream(seed: 1, count: 3_000_000)
        bench.server.say { stream.next() }
        #expect(try loop.run { bench.result != nil && bench.client.ending != nil })
        #expect(bench.client.checksum == stream.checksum)
        #expect(bench.result == RelayResult(bytesUp: 7, bytesDown: 3_000_000, end: .finished))
    }

    @Test(arguments: Start.allCases)
    func aServerThatEndedStillHears(_ start: Start) throws {
        let bench = try Bench(loop, start)
        bench.server.say(bytes("banner"), thenEnd: true)
        #expect(try loop.run { bench.client.ending == .ended })
        var stream = ByteStream(seed: 2, count: 3_000_000)
        bench.client.say { stream.next() }
        #expect(try loop.run { bench.result != nil && bench.server.ending != nil })
        #expect(bench.server.checksum == stream.checksum)
        #expect(bench.result == RelayResult(bytesUp: 3_000_000, bytesDown: 6, end: .finished))
    }

    @Test(arguments: Start.allCases)
    func manyMegabytesBothWays(_ start: Start) throws {
        let bench = try Bench(loop, start)
        bench.client.keepsBytes = false
        bench.server.keepsBytes = false
        var up = ByteStream(seed: 3, count: 64 << 20)
        var down = ByteStream(seed: 4, count: (64 << 20) + 12_345)
        bench.client.say { up.next() }
        bench.server.say { down.next() }
        #expect(
            try loop.run(seconds: 120) {
                bench.result != nil && bench.client.ending != nil && bench.server.ending != nil
            }
        )
        #expect(bench.server.checksum == up.checksum)
        #expect(bench.client.checksum == down.checksum)
        #expect(bench.result == RelayResult(bytesUp: 64 << 20, bytesDown: (64 << 20) + 12_345, end: .finished))
        #expect(loop.pipes.count > 0, "it was spliced")
        #expect(loop.pipes.count == loop.pipes.idleCount, "every pipe was given back")
    }

    @Test(arguments: Start.allCases)
    func copiesWhenThereIsNoPipe(_ start: Start) throws {
        var taken: [SplicePipe] = []
        while taken.count < PipePool.limit, let pipe = loop.pipes.take() { taken.append(pipe) }
        defer { taken.forEach(loop.pipes.discard) }
        let bench = try Bench(loop, start)
        var stream = ByteStream(seed: 5, count: 5_000_000)
        bench.server.say { stream.next() }
        bench.client.say([], thenEnd: true)
        #expect(try loop.run { bench.result != nil && bench.client.ending != nil })
        #expect(bench.client.checksum == stream.checksum)
    }

    @Test(arguments: Start.allCases)
    func anOutOfBandByteDoesNotStopIt(_ start: Start) throws {
        let bench = try Bench(loop, start)
        bench.client.say(Array(repeating: 7, count: 200_000))
        #expect(try loop.run { bench.server.heardCount == 200_000 })
        var urgent = UInt8(ascii: "!")
        #expect(send(bench.client.descriptor, &urgent, 1, CInt(MSG_OOB)) == 1)
        bench.client.say(Array(repeating: 8, count: 200_000), thenEnd: true)
        #expect(try loop.run { bench.server.ending != nil })
        #expect(bench.server.heardCount == 400_000)
    }
}

@Suite struct RelayPressureTests {
    let loop: EventLoop

    init() throws { loop = try EventLoop() }

    @Test(arguments: Start.allCases)
    func aSlowReaderSlowsTheSender(_ start: Start) throws {
        let bench = try Bench(loop, start)
        bench.client.isReading = false
        bench.client.keepsBytes = false
        var stream = ByteStream(seed: 6, count: 64 << 20)
        bench.server.say { stream.next(64 * 1024) }
        try loop.runUntilBlocked(bench.server)
        #expect(bench.server.sentCount < 40 << 20)
        // What the relay took and could not deliver is one pipe or buffer.
        #expect(loop.pipes.count <= 1)
        bench.client.isReading = true
        bench.client.say([], thenEnd: true)
        #expect(try loop.run(seconds: 60) { bench.result != nil && bench.client.ending != nil })
        #expect(bench.client.checksum == stream.checksum)
        #expect(bench.result == RelayResult(bytesUp: 0, bytesDown: 64 << 20, end: .finished))
    }

    @Test(arguments: Start.allCases)
    func aBusyRelayLeavesTurnsForOthers(_ start: Start) throws {
        let busy = try Bench(loop, start)
        let quiet = try Bench(loop, start)
        busy.client.keepsBytes = false
        var stream = ByteStream(seed: 7, count: 1 << 30)
        busy.server.say { stream.next() }
        #expect(try loop.run { busy.client.heardCount > 1 << 20 })
        quiet.client.say(bytes("hello"))
        #expect(try loop.run(seconds: 5) { quiet.server.heard == bytes("hello") })
        #expect(busy.result == nil)
    }

    /// However many are busy: who else is told of something is told soon, and none of the busy ones waits for ever.
    @Test func aTurnIsBoundedHoweverManyAreBusy() throws {
        var streams: [ByteStream] = []
        let benches = try (0..<40).map { index in
            let bench = try Bench(loop, .unwatched)
            bench.client.keepsBytes = false
            streams.append(ByteStream(seed: UInt64(index), count: 1 << 30))
            bench.server.say { streams[index].next() }
            return bench
        }
        var ends: [CInt] = [-1, -1]
        try #require(pipe(&ends) == 0)
        let witness = Witness { benches.map(\.relay.bytes.down) }
        // Its writing end is closed: it has something to tell in every turn.
        Sockets.close(ends[1])
        try loop.register(witness, descriptor: ends[0], interest: .readable)
        #expect(try loop.run(seconds: 60) { witness.last.reduce(0, +) > 96 << 20 })
        #expect(witness.most <= 8 << 20)
        #expect(witness.last.min()! > 512 << 10, "\(witness.last)")
        loop.deregister(witness)
        Sockets.close(ends[0])
    }

    @Test(arguments: Start.allCases)
    func twoHundredAtOnce(_ start: Start) throws {
        let count = 200
        var benches: [Bench] = []
        var sums: [Checksum] = []
        for index in 0..<count {
            let bench = try Bench(loop, start)
            bench.client.keepsBytes = false
            bench.server.keepsBytes = false
            var request = ByteStream(seed: UInt64(index), count: 1_000 + index)
            bench.client.say { request.next() }
            // From a few bytes to 400 KiB, so that both ways of carrying are used.
            var answer = ByteStream(seed: UInt64(1_000 + index), count: 10 + index * 2_048)
            var copy = answer
            while copy.next() != nil {}
            sums.append(copy.checksum)
            bench.server.say { answer.next(30_000) }
            benches.append(bench)
        }
        #expect(try loop.run(seconds: 60) { benches.allSatisfy { $0.result != nil && $0.client.ending != nil } })
        for (index, bench) in benches.enumerated() {
            #expect(bench.client.checksum == sums[index])
            let expected = RelayResult(
                bytesUp: UInt64(1_000 + index),
                bytesDown: UInt64(10 + index * 2_048),
                end: .finished
            )
            #expect(bench.result == expected)
        }
        #expect(loop.pipes.count == loop.pipes.idleCount)
        #expect(loop.pipes.count <= PipePool.idleLimit)
    }
}

@Suite struct RelayEndingTests {
    let loop: EventLoop

    init() throws { loop = try EventLoop() }

    @Test(arguments: Start.allCases)
    func aResetOfTheServerReachesTheClient(_ start: Start) throws {
        let bench = try Bench(loop, start)
        bench.client.say(bytes("x"))
        #expect(try loop.run { bench.server.heardCount == 1 })
        bench.server.reset()
        #expect(try loop.run { bench.result != nil && bench.client.ending != nil })
        #expect(bench.client.ending == .failed(ECONNRESET))
        #expect(bench.result == RelayResult(bytesUp: 1, bytesDown: 0, end: .upstreamFailed(ECONNRESET)))
    }

    @Test(arguments: Start.allCases)
    func aResetOfTheClientReachesTheServer(_ start: Start) throws {
        let bench = try Bench(loop, start)
        bench.client.reset()
        #expect(try loop.run { bench.result != nil && bench.server.ending != nil })
        #expect(bench.server.ending == .failed(ECONNRESET))
        #expect(bench.result?.end == .downstreamFailed(ECONNRESET))
    }

    @Test(arguments: Start.allCases)
    func aResetAfterAHalfCloseIsNotAnEnd(_ start: Start) throws {
        let bench = try Bench(loop, start)
        bench.client.say(bytes("request"), thenEnd: true)
        #expect(try loop.run { bench.server.ending == .ended })
        bench.server.say(bytes("half of the ans"))
        #expect(try loop.run { bench.client.heardCount == 15 })
        bench.server.reset()
        #expect(try loop.run { bench.client.ending != nil })
        #expect(bench.client.ending == .failed(ECONNRESET))
    }

    @Test(arguments: Start.allCases)
    func anAnswerBeforeAResetIsDelivered(_ start: Start) throws {
        // A server that answers without reading the request and closes: its kernel resets.
        let bench = try Bench(loop, start)
        bench.server.isReading = false
        var request = ByteStream(seed: 9, count: 64 << 20)
        bench.client.say { request.next() }
        // The relay waits for room upstream, so it learns of the reset by writing.
        try loop.runUntilBlocked(bench.client)
        bench.server.say(bytes("413 Too Large"))
        bench.server.close()
        #expect(try loop.run { bench.result != nil && bench.client.ending != nil })
        #expect(bench.client.heard == bytes("413 Too Large"))
        #expect(bench.client.ending == .failed(ECONNRESET))
        #expect(bench.result?.bytesDown == 13)
    }

    @Test(arguments: Start.allCases)
    func aResetWhileTheOtherSideIsBlocked(_ start: Start) throws {
        let bench = try Bench(loop, start)
        bench.client.isReading = false
        var stream = ByteStream(seed: 8, count: 64 << 20)
        bench.server.say { stream.next() }
        loop.schedule(at: loop.now.advanced(byNanoseconds: 500_000_000)) { bench.client.reset() }
        #expect(try loop.run { bench.result != nil && bench.server.ending != nil })
        #expect(bench.result?.end == .downstreamFailed(ECONNRESET))
        #expect(loop.pipes.count == 0, "a pipe that still held bytes is not used again")
    }

    @Test(arguments: Start.allCases)
    func idleInBothDirections(_ start: Start) throws {
        let bench = try Bench(loop, start, idleSeconds: 1)
        let start = loop.now
        // Something is said at half time, so the end comes a second after that.
        loop.schedule(at: start.advanced(byNanoseconds: 500_000_000)) { bench.server.say(bytes(".")) }
        #expect(try loop.run { bench.result != nil && bench.client.ending != nil && bench.server.ending != nil })
        #expect(loop.now >= start.advanced(byNanoseconds: 1_490_000_000))
        #expect(bench.result == RelayResult(bytesUp: 0, bytesDown: 1, end: .idle))
        #expect(bench.client.ending == .failed(ECONNRESET))
        #expect(bench.server.ending == .failed(ECONNRESET))
    }

    @Test(arguments: Start.allCases)
    func abortResetsBoth(_ start: Start) throws {
        let bench = try Bench(loop, start)
        bench.relay.abort()
        #expect(bench.result == RelayResult(bytesUp: 0, bytesDown: 0, end: .aborted))
        bench.relay.abort()
        #expect(bench.closeCount == 1)
        #expect(try loop.run { bench.client.ending != nil && bench.server.ending != nil })
        #expect(bench.client.ending == .failed(ECONNRESET))
        #expect(bench.server.ending == .failed(ECONNRESET))
    }

    @Test func anAbortedRelayThatWasNotStartedClosesToo() throws {
        let (clientEnd, downstream) = try tcpPair()
        let (serverEnd, upstream) = try tcpPair()
        var result: RelayResult?
        let relay = Relay(
            loop: loop,
            downstream: downstream,
            upstream: upstream,
            initialToDownstream: [],
            idleSeconds: 1
        ) { result = $0 }
        relay.abort()
        #expect(result?.end == .aborted)
        #expect(Sockets.receive(clientEnd, upTo: 1) == .failed(ECONNRESET))
        #expect(Sockets.receive(serverEnd, upTo: 1) == .failed(ECONNRESET))
        [clientEnd, serverEnd].forEach(Sockets.close)
    }

    @Test(arguments: Start.allCases)
    func nothingIsLeftBehind(_ start: Start) throws {
        weak var relay: Relay?
        do {
            let bench = try Bench(loop, start)
            relay = bench.relay
            bench.client.say(bytes("a"), thenEnd: true)
            bench.server.say(bytes("b"), thenEnd: true)
            #expect(try loop.run { bench.result != nil })
        }
        #expect(relay == nil)
    }
}
