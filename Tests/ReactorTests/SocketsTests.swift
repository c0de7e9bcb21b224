import Glibc
import NetPrimitives
import Reactor
import Testing

@Suite struct SocketsTests {
    @Test func peekedBytesStayUntilTaken() throws {
        let (near, far) = try tcpPair()
        defer { [near, far].forEach(Sockets.close) }
        #expect(Sockets.peek(near, upTo: 10) == .wouldBlock)
        #expect(Sockets.send(far, Array("GET / HTTP".utf8)[...]) == .bytes(10))
        #expect(Sockets.peek(near, upTo: 100) == .bytes(Array("GET / HTTP".utf8)))
        #expect(Sockets.peek(near, upTo: 3) == .bytes(Array("GET".utf8)))
        #expect(Sockets.take(near, exactly: 4))
        #expect(Sockets.receive(near, upTo: 2) == .bytes(Array("/ ".utf8)))
        #expect(Sockets.discard(near) == .bytes(4))
        #expect(Sockets.discard(near) == .wouldBlock)
        #expect(!Sockets.take(near, exactly: 1))
        Sockets.endOutput(far)
        #expect(Sockets.peek(near, upTo: 1) == .ended)
        #expect(Sockets.discard(near) == .ended)
    }

    @Test func resetIsSeenAsOne() throws {
        let (near, far) = try tcpPair()
        Sockets.reset(far)
        #expect(Sockets.receive(near, upTo: 1) == .failed(ECONNRESET))
        Sockets.close(near)
    }

    @Test func lowWaterKeepsALoopAsleep() throws {
        let loop = try EventLoop()
        let (near, far) = try tcpPair()
        Sockets.setReceiveLowWater(near, 100)
        final class Counter: EventSource {
            var count = 0
            override func handle(_ readiness: Readiness) { if readiness.contains(.readable) { count += 1 } }
        }
        let counter = Counter()
        try loop.register(counter, descriptor: near, interest: .readable, edgeTriggered: true)
        for _ in 0..<9 {
            #expect(Sockets.send(far, Array(repeating: 1, count: 10)[...]) == .bytes(10))
            loop.schedule(at: loop.now.advanced(byNanoseconds: 2_000_000)) { loop.stop() }
            try loop.run()
        }
        #expect(counter.count == 0)
        #expect(Sockets.send(far, Array(repeating: 1, count: 10)[...]) == .bytes(10))
        #expect(try loop.run { counter.count == 1 })
        loop.deregister(counter)
        [near, far].forEach(Sockets.close)
    }

    @Test(arguments: [loopback, IPAddress(v6: 1)])
    func datagrams(_ address: IPAddress) throws {
        let server = try Sockets.udpSocket(Endpoint(address, 0))
        let client = try Sockets.udpSocket(Endpoint(address, 0))
        defer { [server, client].forEach(Sockets.close) }
        let serverEndpoint = try #require(Sockets.localEndpoint(server))
        let clientEndpoint = try #require(Sockets.localEndpoint(client))
        #expect(Sockets.receiveDatagram(server, upTo: 10) == .wouldBlock)
        #expect(Sockets.sendDatagram(client, [1, 2, 3], to: serverEndpoint) == .bytes(3))
        #expect(Sockets.sendDatagram(client, [], to: serverEndpoint) == .bytes(0))
        #expect(Sockets.receiveDatagram(server, upTo: 10) == .datagram([1, 2, 3], from: clientEndpoint))
        #expect(Sockets.receiveDatagram(server, upTo: 10) == .datagram([], from: clientEndpoint))
        #expect(Sockets.lostDatagrams(server) == 0)
        // More than the socket takes, and fewer than the kernel may lose on their way there (net.core.netdev_max_backlog).
        for _ in 0..<900 { #expect(Sockets.sendDatagram(client, [1], to: serverEndpoint) == .bytes(1)) }
        var received = 0
        while case .datagram = Sockets.receiveDatagram(server, upTo: 10) { received += 1 }
        #expect(received > 0 && received + Int(Sockets.lostDatagrams(server)) == 900)
    }

    @Test func errorsSayWhatAndWhy() throws {
        let first = try Sockets.tcpListener(Endpoint(loopback, 0))
        defer { Sockets.close(first) }
        let endpoint = try #require(Sockets.localEndpoint(first))
        let error = #expect(throws: SystemError.self) { try Sockets.tcpListener(endpoint) }
        #expect(error.map { "\($0)" } == "cannot bind TCP \(endpoint): Address already in use")
        #expect(throws: SystemError(operation: "bind", errno: EADDRNOTAVAIL, context: "UDP 192.0.2.1:0")) {
            try Sockets.udpSocket(Endpoint(IPAddress(v4: 0xc000_0201), 0))
        }
    }
}
