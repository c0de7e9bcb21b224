import FoundationEssentials
import Glibc
import NetPrimitives
import Testing

@testable import Reactor

/// A gate that is told what to do by words: upstream says "look" or anything else; downstream's bytes pass up to the next
/// "!", and "stop" has the relay aborted.
private final class WordGate: RelayGate {
    private(set) var looks: [[UInt8]] = []
    var onStop: () -> Void = {}

    override func upstreamSaid(_ bytes: UnsafeRawBufferPointer) {
        state = Array(bytes).starts(with: Array("look".utf8)) ? .looking : .open
    }

    override func downstreamSays(_ bytes: [UInt8]) -> Step {
        looks.append(bytes)
        if bytes.starts(with: Array("stop".utf8)) {
            onStop()
            return .refuses
        }
        if bytes.starts(with: Array("open".utf8)) { return .opens }
        if let end = bytes.firstIndex(of: UInt8(ascii: "!")) { return .passes(end + 1) }
        return .waits(forAtLeast: bytes.count + 1)
    }
}

private final class Bench {
    let client: Peer
    let server: Peer
    private(set) var gate: WordGate
    private let loop: EventLoop
    private(set) var result: RelayResult?
    private(set) var relay: Relay!

    init(_ loop: EventLoop, allowance: Int, beforeStart: (Peer) -> Void = { _ in }) throws {
        let (clientEnd, downstream) = try tcpPair()
        let (serverEnd, upstream) = try tcpPair()
        client = try Peer(clientEnd, loop: loop)
        server = try Peer(serverEnd, loop: loop)
        gate = WordGate(allowance: allowance)
        self.loop = loop
        beforeStart(client)
        relay = Relay(
            loop: loop,
            downstream: downstream,
            upstream: upstream,
            initialToDownstream: [],
            gate: gate,
            idleSeconds: 60
        ) { [weak self] in self?.result = $0 }
        gate.onStop = { [unowned self] in relay.abort() }
        relay.start()
    }

    /// As from one process to another.
    func handOver() throws {
        let (state, descriptors) = try #require(relay.release())
        if state.hasGate { gate = WordGate(continuing: state) }
        relay = Relay(
            loop: loop,
            continuing: try JSONDecoder().decode(RelayState.self, from: JSONEncoder().encode(state)),
            descriptors: descriptors,
            gate: state.hasGate ? gate : nil,
            idleSeconds: 60
        ) { [weak self] in self?.result = $0 }
        relay.start()
    }

    deinit {
        relay.abort()
        client.close()
        server.close()
    }
}

private func bytes(_ text: String) -> [UInt8] { Array(text.utf8) }

@Suite struct RelayGateTests {
    let loop: EventLoop

    init() throws { loop = try EventLoop() }

    /// Long enough for what would pass to have passed.
    private func rest() throws {
        loop.schedule(at: loop.now.advanced(byNanoseconds: 100_000_000)) { [loop] in loop.stop() }
        try loop.run()
    }

    @Test func whatComesBehindWaitsForAnAnswer() throws {
        let bench = try Bench(loop, allowance: 5) { $0.say(bytes("helloand more")) }
        #expect(try loop.run { bench.server.heard == bytes("hello") })
        bench.client.say(bytes(" and more"))
        try rest()
        #expect(bench.server.heard == bytes("hello"))
        bench.server.say(bytes("yes"))
        #expect(
            try loop.run { bench.server.heard == bytes("helloand more and more") && bench.client.heard == bytes("yes") }
        )
        #expect(bench.gate.looks.isEmpty)
        bench.client.say(bytes("?"), thenEnd: true)
        bench.server.say([], thenEnd: true)
        #expect(try loop.run { bench.result != nil })
        #expect(bench.result == RelayResult(bytesUp: 23, bytesDown: 3, end: .finished))
    }

    @Test func whatIsLookedAtPassesInPieces() throws {
        let bench = try Bench(loop, allowance: 2) { $0.say(bytes("hi")) }
        bench.server.say(bytes("look"))
        #expect(try loop.run { bench.client.heard == bytes("look") })
        bench.client.say(bytes("one!two"))
        #expect(try loop.run { bench.server.heard == bytes("hione!") })
        bench.client.say(bytes("!thr"))
        #expect(try loop.run { bench.server.heard == bytes("hione!two!") })
        try rest()
        #expect(bench.server.heard == bytes("hione!two!"))
        bench.client.say(bytes("ee!open"))
        #expect(try loop.run { bench.server.heard == bytes("hione!two!three!open") })
        bench.client.say(bytes("stop"))
        #expect(try loop.run { bench.server.heard == bytes("hione!two!three!openstop") })
    }

    @Test func whoLooksMayEndIt() throws {
        let bench = try Bench(loop, allowance: 2) { $0.say(bytes("histop")) }
        bench.server.say(bytes("look"))
        #expect(try loop.run { bench.result != nil && bench.server.ending != nil && bench.client.ending != nil })
        #expect(bench.result?.end == .aborted && bench.result?.bytesUp == 2)
        #expect(bench.server.heard == bytes("hi"))
    }

    /// Neither may leave the other waiting for what will not come.
    @Test func anEndOpensIt() throws {
        let ofTheClient = try Bench(loop, allowance: 2) { $0.say(bytes("hi"), thenEnd: true) }
        #expect(try loop.run { ofTheClient.server.ending == .ended })
        let ofTheServer = try Bench(loop, allowance: 2) { $0.say(bytes("hi there")) }
        #expect(try loop.run { ofTheServer.server.heard == bytes("hi") })
        ofTheServer.server.say([], thenEnd: true)
        #expect(try loop.run { ofTheServer.server.heard == bytes("hi there") && ofTheServer.client.ending == .ended })
    }

    @Test func aBreakIsPassedOn() throws {
        let bench = try Bench(loop, allowance: 2) { $0.say(bytes("hi")) }
        #expect(try loop.run { bench.server.heard == bytes("hi") })
        bench.client.reset()
        #expect(try loop.run { bench.result != nil && bench.server.ending != nil })
        #expect(bench.server.ending == .failed(ECONNRESET))
    }

    /// What was said before the end is not whole, and would never become so.
    @Test func whatIsCutOffDoesNotPass() throws {
        let bench = try Bench(loop, allowance: 2) { $0.say(bytes("hi")) }
        bench.server.say(bytes("look"))
        #expect(try loop.run { bench.client.heard == bytes("look") })
        bench.client.say(bytes("thr"), thenEnd: true)
        #expect(try loop.run { bench.result != nil && bench.server.ending != nil })
        #expect(bench.server.heard == bytes("hi") && bench.server.ending == .failed(ECONNRESET))
    }

    /// Another process goes on with it as it was: what waits goes on waiting, for an answer or to be looked at.
    @Test(arguments: ["", "look"]) func itIsHandedOver(answer: String) throws {
        let bench = try Bench(loop, allowance: 2) { $0.say(bytes("hi")) }
        bench.server.say(bytes(answer))
        #expect(try loop.run { bench.server.heard == bytes("hi") && bench.client.heard == bytes(answer) })
        bench.client.say(bytes("one"))
        try rest()
        try bench.handOver()
        try rest()
        #expect(bench.server.heard == bytes("hi") && bench.result == nil)
        if answer.isEmpty { bench.server.say(bytes("look")) }
        bench.client.say(bytes("!two"))
        #expect(try loop.run { bench.server.heard == bytes("hione!") })
        bench.client.say(bytes("!open"))
        #expect(try loop.run { bench.server.heard == bytes("hione!two!open") })
        try bench.handOver()
        bench.client.say(bytes("stop"), thenEnd: true)
        bench.server.say([], thenEnd: true)
        #expect(try loop.run { bench.result != nil })
        #expect(bench.result == RelayResult(bytesUp: 18, bytesDown: 4, end: .finished))
    }
}
