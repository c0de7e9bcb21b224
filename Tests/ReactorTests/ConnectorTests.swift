import Glibc
import NetPrimitives
import Reactor
import Testing

@Suite struct ConnectorTests {
    /// A port that nobody listens on.
    private let refusedEndpoint = Endpoint(loopback, 1)

    /// A listener whose backlog is full: the kernel drops further SYNs, as if nobody were there.
    private final class BlackHole {
        let endpoint: Endpoint
        private var descriptors: [CInt]

        init(_ loop: EventLoop) throws {
            let listener = try Sockets.tcpListener(Endpoint(loopback, 0), backlog: 0)
            endpoint = try #require(Sockets.localEndpoint(listener))
            descriptors = [listener]
            // A backlog of 0 holds one; wait until one more than that does not get through.
            var isFull = false
            while !isFull {
                var outcome: Result<CInt, SystemError>?
                _ = Connector(loop: loop, endpoints: [endpoint], timeoutMilliseconds: 200) { outcome = $0 }
                #expect(try loop.run { outcome != nil })
                switch outcome {
                case .success(let descriptor): descriptors.append(descriptor)
                default: isFull = true
                }
            }
        }

        deinit { descriptors.forEach(Sockets.close) }
    }

    private func connect(
        _ loop: EventLoop,
        _ endpoints: [Endpoint],
        milliseconds: UInt64 = 5_000
    ) throws -> Result<CInt, SystemError> {
        var outcome: Result<CInt, SystemError>?
        var calls = 0
        _ = Connector(loop: loop, endpoints: endpoints, timeoutMilliseconds: milliseconds) {
            outcome = $0
            calls += 1
        }
        #expect(outcome == nil, "never from the initialiser")
        #expect(try loop.run { outcome != nil })
        #expect(calls == 1)
        return try #require(outcome)
    }

    @Test(arguments: [loopback, IPAddress(v6: 1)])
    func connects(to address: IPAddress) throws {
        let loop = try EventLoop()
        let listener = try Sockets.tcpListener(Endpoint(address, 0))
        defer { Sockets.close(listener) }
        let endpoint = try #require(Sockets.localEndpoint(listener))
        let descriptor = try connect(loop, [endpoint]).get()
        defer { Sockets.close(descriptor) }
        #expect(Sockets.peerEndpoint(descriptor) == endpoint)
        guard case .accepted(let accepted, let from) = Sockets.accept(listener) else {
            Issue.record("nothing to accept")
            return
        }
        #expect(from == Sockets.localEndpoint(descriptor))
        #expect(Sockets.originalDestination(accepted, address.family) == nil)
        Sockets.close(accepted)
    }

    @Test func refusal() throws {
        let endpoint = refusedEndpoint
        let result = try connect(EventLoop(), [endpoint])
        let expected = SystemError(operation: "connect", errno: ECONNREFUSED, context: "\(endpoint)")
        #expect(result == .failure(expected))
        #expect("\(expected)" == "cannot connect \(endpoint): Connection refused")
    }

    @Test func errorsThatComeAtOnceAreToldLater() throws {
        // A broadcast address is refused within connect(2).
        let broadcast = Endpoint(IPAddress(v4: 0xffff_ffff), 9)
        guard case .failure(let error) = try connect(EventLoop(), [broadcast, broadcast]) else {
            Issue.record("connected to a broadcast address")
            return
        }
        #expect([EACCES, ENETUNREACH, ECONNREFUSED].contains(error.errno))
        #expect(try connect(EventLoop(), []) != .success(0))
    }

    @Test func timesOut() throws {
        let loop = try EventLoop()
        let hole = try BlackHole(loop)
        let start = loop.now
        let result = try connect(loop, [hole.endpoint], milliseconds: 300)
        let expected = SystemError(operation: "connect", errno: ETIMEDOUT, context: "\(hole.endpoint)")
        #expect(result == .failure(expected))
        #expect(loop.now >= start.advanced(byNanoseconds: 295_000_000))
    }

    @Test func theNextIsTriedWhenOneIsRefusedOrSilent() throws {
        let loop = try EventLoop()
        let hole = try BlackHole(loop)
        let listener = try Sockets.tcpListener(Endpoint(loopback, 0))
        defer { Sockets.close(listener) }
        let good = try #require(Sockets.localEndpoint(listener))
        let start = loop.now
        let descriptor = try connect(loop, [refusedEndpoint, hole.endpoint, good]).get()
        #expect(Sockets.peerEndpoint(descriptor) == good)
        #expect(loop.now < start.advanced(byNanoseconds: 2_000_000_000))
        Sockets.close(descriptor)
    }

    @Test func cancelledIsSilent() throws {
        let loop = try EventLoop()
        let endpoint = refusedEndpoint
        var called = false
        let connector = Connector(loop: loop, endpoints: [endpoint], timeoutMilliseconds: 10) { _ in called = true }
        connector.cancel()
        connector.cancel()
        loop.schedule(at: loop.now.advanced(byNanoseconds: 30_000_000)) { loop.stop() }
        try loop.run()
        #expect(!called)
    }

    @Test func nothingIsLeftBehind() throws {
        weak var loop: EventLoop?
        weak var connector: Connector?
        do {
            let strong = try EventLoop()
            loop = strong
            let hole = try BlackHole(strong)
            var done = false
            do {
                let begun = Connector(loop: strong, endpoints: [hole.endpoint], timeoutMilliseconds: 20) { _ in
                    done = true
                }
                connector = begun
            }
            #expect(connector != nil, "it lives though nobody holds it")
            #expect(try strong.run { done })
            #expect(connector == nil)
        }
        #expect(loop == nil)
    }
}

@Suite struct ListenerTests {
    @Test func acceptsUntilClosed() throws {
        let loop = try EventLoop()
        var accepted: [CInt] = []
        let listener = try Listener(loop: loop, descriptor: Sockets.tcpListener(Endpoint(loopback, 0))) {
            descriptor,
            _ in
            accepted.append(descriptor)
        }
        let endpoint = try #require(listener.endpoint)
        var connected: [CInt] = []
        for _ in 0..<100 {
            _ = Connector(loop: loop, endpoints: [endpoint], timeoutMilliseconds: 5_000) { result in
                if case .success(let descriptor) = result { connected.append(descriptor) }
            }
        }
        #expect(try loop.run { accepted.count == 100 && connected.count == 100 })
        listener.close()
        listener.close()
        #expect(listener.endpoint == nil)
        (accepted + connected).forEach(Sockets.close)
    }
}
