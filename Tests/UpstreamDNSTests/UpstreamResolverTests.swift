import Glibc
import NetPrimitives
import Reactor
import Testing

@testable import UpstreamDNS

/// Against a server that says what the test wants.
@Suite struct UpstreamResolverTests {
    let loop: EventLoop

    init() throws { loop = try EventLoop() }

    private func ask(
        _ resolver: UpstreamResolver,
        _ query: [UInt8]
    ) throws -> Result<[UInt8], UpstreamError> {
        var result: Result<[UInt8], UpstreamError>?
        var calls = 0
        resolver.send(query) {
            result = $0
            calls += 1
        }
        #expect(result == nil, "never from within send")
        #expect(try loop.run { result != nil })
        #expect(calls == 1)
        return try #require(result)
    }

    @Test func theMessageAndTheAnswerPassUntouched() throws {
        let server = try ScriptedServer(loop)
        let resolver = try UpstreamResolver(loop: loop, servers: [server.endpoint])
        let query = Messages.query("WwW.eXamPle.tEst", id: 0xbeef)
        let reply = Messages.reply(to: query, payload: 1_100)
        server.answer = { _ in [reply] }
        // More than 512 bytes in one datagram: no second question over TCP.
        #expect(try ask(resolver, query) == .success(reply))
        #expect(server.queries.map(\.bytes) == [query])
        #expect(!server.queries[0].isTCP)
    }

    @Test func everyQueryHasItsOwnPort() throws {
        let server = try ScriptedServer(loop)
        let resolver = try UpstreamResolver(loop: loop, servers: [server.endpoint])
        server.answer = { [Messages.reply(to: $0.bytes)] }
        var answers = 0
        for index in 0..<50 {
            resolver.send(Messages.query("a\(index).test")) { if case .success = $0 { answers += 1 } }
        }
        #expect(try loop.run { answers == 50 })
        #expect(Set(server.queries.map(\.from.port)).count == 50)
        for index in 0..<20 { #expect(try ask(resolver, Messages.query("b\(index).test")).isSuccess) }
        #expect(Set(server.queries.map(\.from.port)).count > 60)
    }

    @Test func nothingIsSentOverUDPWhereTCPAloneIsUsed() throws {
        let server = try ScriptedServer(loop)
        let resolver = try UpstreamResolver(loop: loop, servers: [server.endpoint], usesTCPAlone: true)
        server.answer = { [Messages.reply(to: $0.bytes, payload: 1_100)] }
        for index in 0..<3 {
            let query = Messages.query("a\(index).test")
            #expect(try ask(resolver, query) == .success(Messages.reply(to: query, payload: 1_100)))
        }
        #expect(server.queries.map(\.isTCP) == [true, true, true])
        #expect(Set(server.queries.map(\.from.port)).count == 3, "a connection each")
    }

    @Test func anAnswerThatIsNotAcceptedIsNone() throws {
        let (server, other) = (try ScriptedServer(loop), try ScriptedServer(loop))
        server.answer = { [Messages.reply(to: $0.bytes)] }
        var isAccepting = false
        let resolver = try UpstreamResolver(loop: loop, servers: [server.endpoint], tries: 1) { isAccepting }
        #expect(try ask(resolver, Messages.query("a.test")) == .failure(.unaccepted))
        #expect(server.queries.count == 1)
        // Another server's may be one.
        other.answer = server.answer
        let both = try UpstreamResolver(loop: loop, servers: [server.endpoint, other.endpoint], tries: 1) {
            !other.queries.isEmpty
        }
        #expect(try ask(both, Messages.query("b.test")).isSuccess)
        isAccepting = true
        #expect(try ask(resolver, Messages.query("c.test")).isSuccess)
    }

    @Test func truncatedIsAskedAgainOverTCP() throws {
        let server = try ScriptedServer(loop)
        let resolver = try UpstreamResolver(loop: loop, servers: [server.endpoint])
        server.answer = { query in
            [Messages.reply(to: query.bytes, truncated: !query.isTCP, payload: query.isTCP ? 20_000 : 0)]
        }
        let query = Messages.query("large.test", Messages.txt)
        #expect(try ask(resolver, query) == .success(Messages.reply(to: query, payload: 20_000)))
        #expect(server.queries.map(\.isTCP) == [false, true])
        #expect(server.queries.map(\.bytes) == [query, query])
    }

    @Test func answersToOtherQuestionsAreNotTaken() throws {
        let server = try ScriptedServer(loop)
        let resolver = try UpstreamResolver(loop: loop, servers: [server.endpoint])
        let query = Messages.query("right.test", id: 7)
        let right = Messages.reply(to: query, payload: 5)
        server.answer = { _ in
            let other = Messages.query("wrong.test", id: 7)
            let otherID = Messages.query("right.test", id: 8)
            return [Messages.reply(to: other), Messages.reply(to: otherID), [1], [], right]
        }
        #expect(try ask(resolver, query) == .success(right))
    }

    @Test(arguments: [2, 4, 5] as [UInt8])
    func aServersFailureLeadsToTheNext(_ rcode: UInt8) throws {
        let failing = try ScriptedServer(loop)
        let good = try ScriptedServer(loop)
        failing.answer = { [Messages.reply(to: $0.bytes, rcode: rcode)] }
        good.answer = { [Messages.reply(to: $0.bytes, payload: 3)] }
        let resolver = try UpstreamResolver(loop: loop, servers: [failing.endpoint, good.endpoint])
        let query = Messages.query("x.test")
        #expect(try ask(resolver, query) == .success(Messages.reply(to: query, payload: 3)))
        #expect(failing.queries.count == 1)
    }

    @Test func theLastServersFailureIsTheAnswer() throws {
        let failing = try ScriptedServer(loop)
        failing.answer = { [Messages.reply(to: $0.bytes, rcode: 2)] }
        let resolver = try UpstreamResolver(loop: loop, servers: [failing.endpoint, deadEndpoint])
        let query = Messages.query("x.test")
        #expect(try ask(resolver, query) == .success(Messages.reply(to: query, rcode: 2)))
        #expect(failing.queries.count == 1, "asked once: it would say the same")
    }

    @Test func silenceIsATimeout() throws {
        let server = try ScriptedServer(loop)
        let resolver = try UpstreamResolver(loop: loop, servers: [server.endpoint], timeoutMilliseconds: 100, tries: 3)
        let start = loop.now
        #expect(try ask(resolver, Messages.query("x.test")) == .failure(.timeout))
        #expect(server.queries.count == 3)
        #expect(loop.now >= start.advanced(byNanoseconds: 300_000_000))
        #expect(loop.now < start.advanced(byNanoseconds: 3_000_000_000))
    }

    @Test func aSilentServerIsAskedAfterTheOthersForAWhile() throws {
        let silent = try ScriptedServer(loop)
        let good = try ScriptedServer(loop)
        good.answer = { [Messages.reply(to: $0.bytes)] }
        let resolver = try UpstreamResolver(
            loop: loop,
            servers: [silent.endpoint, good.endpoint],
            timeoutMilliseconds: 200
        )
        for _ in 0..<5 { #expect(try ask(resolver, Messages.query("x.test")).isSuccess) }
        #expect(silent.queries.count == 1)
        #expect(good.queries.count == 5)
    }

    @Test func refusal() throws {
        let resolver = try UpstreamResolver(loop: loop, servers: [deadEndpoint])
        #expect(try ask(resolver, Messages.query("x.test")) == .failure(.refused))
    }

    @Test func unreachable() throws {
        // Sending to a broadcast address without leave fails at once.
        let resolver = try UpstreamResolver(loop: loop, servers: [Endpoint(IPAddress(v4: 0xffff_ffff), 53)])
        #expect(try ask(resolver, Messages.query("x.test")) == .failure(.unreachable))
    }

    @Test func malformed() throws {
        let server = try ScriptedServer(loop)
        let resolver = try UpstreamResolver(loop: loop, servers: [server.endpoint])
        #expect(try ask(resolver, [1, 2, 3]) == .failure(.malformed))
        #expect(throws: UpstreamError.self) { try UpstreamResolver(loop: loop, servers: []) }
    }

    @Test func aServerWithoutEDNSIsAskedWithoutIt() throws {
        let server = try ScriptedServer(loop)
        let resolver = try UpstreamResolver(loop: loop, servers: [server.endpoint])
        server.answer = { query in
            let hasOptions = query.bytes[11] == 1
            return [Messages.reply(to: query.bytes, rcode: hasOptions ? 1 : 0, edns: false)]
        }
        let query = Messages.query("old.test")
        for _ in 0..<2 {
            let reply = try ask(resolver, query).get()
            #expect(Messages.rcode(reply) == 0)
        }
        #expect(
            server.queries.map { $0.bytes.count } == [query.count, query.count - 11, query.count, query.count - 11]
        )
        // A query without EDNS that is refused as malformed is not cut.
        server.answer = { [Messages.reply(to: $0.bytes, rcode: 1, edns: false)] }
        let plain = Messages.query("old.test", edns: false)
        #expect(try ask(resolver, plain) == .success(Messages.reply(to: plain, rcode: 1, edns: false)))
        #expect(server.queries.last?.bytes == plain)
    }
}

@Suite struct UpstreamQueryEndingTests {
    let loop: EventLoop

    init() throws { loop = try EventLoop() }

    @Test func cancellingOneLeavesTheOthers() throws {
        let server = try ScriptedServer(loop)
        let resolver = try UpstreamResolver(loop: loop, servers: [server.endpoint])
        var ended: [Int] = []
        let queries = (0..<10).map { index in
            resolver.send(Messages.query("q\(index).test")) { _ in ended.append(index) }
        }
        for index in [0, 3, 9] { queries[index].cancel() }
        queries[3].cancel()
        server.answer = { [Messages.reply(to: $0.bytes)] }
        #expect(try loop.run { ended.count >= 7 })
        loop.schedule(at: loop.now.advanced(byNanoseconds: 50_000_000)) { loop.stop() }
        try loop.run()
        #expect(ended.sorted() == [1, 2, 4, 5, 6, 7, 8])
        queries.forEach { $0.cancel() }
    }

    @Test func closingEndsEveryQuery() throws {
        let server = try ScriptedServer(loop)
        let resolver = try UpstreamResolver(loop: loop, servers: [server.endpoint])
        var results: [Result<[UInt8], UpstreamError>] = []
        for index in 0..<5 { resolver.send(Messages.query("q\(index).test")) { results.append($0) } }
        resolver.close()
        resolver.close()
        #expect(results == Array(repeating: .failure(.cancelled), count: 5))
        resolver.send(Messages.query("late.test")) { results.append($0) }
        #expect(results.count == 5)
        #expect(try loop.run { results.count == 6 })
        #expect(results.last == .failure(.cancelled))
    }

    @Test func closedAndReleasedFromACompletion() throws {
        let server = try ScriptedServer(loop)
        server.answer = { [Messages.reply(to: $0.bytes)] }
        for closes in [true, false] {
            var resolver: UpstreamResolver? = try UpstreamResolver(loop: loop, servers: [server.endpoint])
            var answers = 0
            for index in 0..<3 {
                resolver?.send(Messages.query("q\(index).test")) { _ in
                    answers += 1
                    if closes { resolver?.close() }
                    resolver = nil
                }
            }
            #expect(try loop.run { answers > 0 })
            loop.schedule(at: loop.now.advanced(byNanoseconds: 50_000_000)) { loop.stop() }
            try loop.run()
            #expect(answers == (closes ? 3 : 1))
        }
    }

    @Test func releasingDropsEveryQuery() throws {
        let server = try ScriptedServer(loop)
        var called = false
        var query: UpstreamQuery?
        do {
            let resolver = try UpstreamResolver(loop: loop, servers: [server.endpoint], timeoutMilliseconds: 50)
            query = resolver.send(Messages.query("x.test")) { _ in called = true }
        }
        loop.schedule(at: loop.now.advanced(byNanoseconds: 300_000_000)) { loop.stop() }
        try loop.run()
        #expect(!called)
        query?.cancel()
    }
}

/// Against a real server.
@Suite(.enabled(if: Dnsmasq.isInstalled, "dnsmasq is not installed"), .serialized)
struct RealServerTests {
    let loop: EventLoop
    let dnsmasq: Dnsmasq
    let resolver: UpstreamResolver

    init() throws {
        loop = try EventLoop()
        dnsmasq = try Dnsmasq()
        resolver = try UpstreamResolver(loop: loop, servers: [dnsmasq.endpoint])
        try dnsmasq.waitUntilReady(loop, resolver)
    }

    private func ask(_ resolver: UpstreamResolver, _ query: [UInt8]) throws -> Result<[UInt8], UpstreamError> {
        var result: Result<[UInt8], UpstreamError>?
        resolver.send(query) { result = $0 }
        #expect(try loop.run { result != nil })
        return try #require(result)
    }

    @Test func answer() throws {
        let query = Messages.query("AnSwEr.tEsT")
        let reply = try ask(resolver, query).get()
        #expect(Messages.rcode(reply) == 0)
        #expect(Array(reply[..<2]) == Array(query[..<2]))
        #expect(Messages.question(of: reply) == Messages.question(of: query))
        #expect(Messages.contains(reply, [192, 0, 2, 7]))
    }

    @Test func noSuchName() throws {
        let reply = try ask(resolver, Messages.query("absent.test")).get()
        #expect(Messages.rcode(reply) == 3)
        #expect(Messages.answerCount(reply) == 0)
    }

    @Test func overTCPWhenTooLarge() throws {
        let reply = try ask(resolver, Messages.query("large.test", Messages.txt)).get()
        #expect(!Messages.isTruncated(reply))
        #expect(reply.count > 2_000)
    }

    @Test func theFirstServerIsDead() throws {
        let resolver = try UpstreamResolver(loop: loop, servers: [deadEndpoint, dnsmasq.endpoint])
        #expect(Messages.rcode(try ask(resolver, Messages.query("answer.test")).get()) == 0)
    }
}

@Suite struct SystemServersTests {
    @Test func nameserverLines() {
        let text = """
            # nameserver 192.0.2.1
            domain example.test
            nameserver 192.0.2.2
            nameserver\t2001:db8::53  ; first
            nameserver fe80::1%eth0
             nameserver 192.0.2.3
            nameservers 192.0.2.4
            nameserver
            nameserver 192.0.2.5\r
            """
        let servers = UpstreamResolver.servers(inConfiguration: Array(text.utf8))
        #expect(servers.map(\.description) == ["192.0.2.2:53", "[2001:db8::53]:53", "192.0.2.5:53"])
    }

    @Test func noFile() {
        #expect(UpstreamResolver.systemServers(path: "/nonexistent").isEmpty)
    }
}

extension Result {
    var isSuccess: Bool { if case .success = self { true } else { false } }
}
