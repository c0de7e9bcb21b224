import EgressCore
import EgressPolicy
import Glibc
import NetPrimitives
import Nftables
import Reactor
import Testing

@testable import Datapath

/// Datagrams through the kernel's redirect, conntrack, the relay and back, and the end of flows.
@Suite struct DatagramRelayTests {
    private static func rule(
        _ target: String,
        ports: PortRange...,
        action: RuleAction = .allow,
        transport: TransportProtocol? = .udp
    ) -> Rule {
        Rule(action, try! Target(parsing: target), ports: ports, transport: transport)
    }

    private static let everything = Policy(rules: [rule("0.0.0.0/0"), rule("::/0")])
    private let name = try! DomainName("service.example")

    @Test(arguments: DatagramStage.outside) func relaysBothWays(address: IPAddress) throws {
        try DatagramStage.with(Self.everything) { stage in
            let server = try DatagramServer(stage, address)
            defer { server.close() }
            let endpoint = server.endpoint
            let answers = try stage.run {
                let socket = try ProgramSocket(to: endpoint)
                return [try socket.ask("one"), try socket.ask(""), try socket.ask("three")]
            }
            #expect(answers == ["one", "", "three"])
            #expect(server.arrived == ["one", "", "three"])
            #expect(Set(server.peers).count == 1)
            let allowed = try #require(stage.events(.connectionAllowed).first)
            #expect(stage.events(.connectionAllowed).count == 1)
            #expect((allowed.address, allowed.port) == (address, 4_444))
            #expect((allowed.ipProtocol, allowed.layer) == (17, .ip))
            #expect(allowed.verdict?.rule?.index == (address.family == .v4 ? 0 : 1))
            stage.attachment.datagrams.endAll()
            let closed = try #require(stage.events(.connectionClosed).first)
            #expect((closed.bytesUp, closed.bytesDown) == (8, 8))
            #expect(stage.events(.connectionDenied).isEmpty)
        }
    }

    /// The stage's servers are on addresses of the very namespace that the relay's sockets are in.
    @Test(arguments: DatagramStage.outside) func anUnknownAddressOfTheNodeIsRefused(address: IPAddress) throws {
        try DatagramStage.with(Self.everything, nodeAddresses: [IPAddress("127.0.0.1")!]) { stage in
            let server = try DatagramServer(stage, address)
            defer { server.close() }
            let endpoint = server.endpoint
            _ = try stage.run {
                #expect(throws: BlockingSocket.Failure.self) { try ProgramSocket(to: endpoint).ask("to the node") }
            }
            #expect(server.arrived.isEmpty)
            #expect(stage.events(.connectionDenied).first?.verdict?.reason == .guardRange)
            #expect(stage.events(.connectionAllowed).isEmpty)
        }
    }

    @Test func whatLeadsToANewAddressOfTheNodeEnds() throws {
        try DatagramStage.with(Self.everything) { stage in
            let server = try DatagramServer(stage)
            defer { server.close() }
            let endpoint = server.endpoint
            let socket = try stage.run {
                let socket = try ProgramSocket(to: endpoint)
                #expect(try socket.ask("before") == "before")
                return socket
            }
            stage.attachment.guardNode(at: [endpoint.address])
            #expect(stage.attachment.datagrams.count == 0)
            _ = try stage.run { #expect(throws: BlockingSocket.Failure.self) { try socket.ask("after") } }
            #expect(server.arrived == ["before"])
            #expect(stage.attachment.policy.generation == 1)
        }
    }

    @Test func whatIsNoLongerAllowedEndsBeforeAChangeReturns() throws {
        try DatagramStage.with(Self.everything) { stage in
            let server = try DatagramServer(stage)
            defer { server.close() }
            let endpoint = server.endpoint
            let socket = try stage.run {
                let socket = try ProgramSocket(to: endpoint)
                #expect(try socket.ask("before") == "before")
                return socket
            }
            #expect(stage.attachment.datagrams.count == 1)
            // Its port stays open to others, so that the kernel lets it through still.
            let narrow = Policy(rules: [
                Self.rule("198.51.100.9", ports: PortRange(4_444)!, action: .deny), Self.rule("198.51.100.9"),
                Self.rule("198.51.100.8"),
            ])
            try stage.attachment.replacePolicy(with: CompiledPolicy(narrow, generation: 2))
            #expect(stage.attachment.datagrams.count == 0)
            #expect(stage.events(.connectionClosed).count == 1)
            let peer = try #require(server.peers.first)
            server.send("too late", to: peer)
            let failure = try stage.run {
                #expect(throws: BlockingSocket.Failure.self) { try socket.ask("after") }?.code
            }
            // Told by ICMP; nothing of the server's late datagram.
            #expect(failure == EHOSTUNREACH)
            #expect(server.arrived == ["before"])
            let denied = try #require(stage.events(.connectionDenied).first)
            #expect(denied.verdict?.reason == .rule)
            #expect(denied.verdict?.rule?.index == 0)
            #expect((denied.port, denied.ipProtocol, denied.policyRevision) == (4_444, 17, 2))
        }
    }

    @Test func whatIsStillAllowedDoesNotNoticeAChange() throws {
        try DatagramStage.with(Self.everything) { stage in
            let server = try DatagramServer(stage)
            defer { server.close() }
            let endpoint = server.endpoint
            let socket = try stage.run {
                let socket = try ProgramSocket(to: endpoint)
                #expect(try socket.ask("before") == "before")
                return socket
            }
            let other = Policy(rules: [Self.rule("198.51.100.0/24", ports: PortRange(4_444)!)])
            try stage.attachment.replacePolicy(with: CompiledPolicy(other, generation: 2))
            #expect(try stage.run { try socket.ask("after") } == "after")
            #expect(Set(server.peers).count == 1)
            #expect(stage.events(.connectionAllowed).count == 1)
            #expect(stage.events(.connectionClosed).isEmpty)
        }
    }

    @Test func aPauseEndsEverything() throws {
        try DatagramStage.with(Self.everything) { stage in
            let server = try DatagramServer(stage)
            defer { server.close() }
            let endpoint = server.endpoint
            let socket = try stage.run {
                let socket = try ProgramSocket(to: endpoint)
                #expect(try socket.ask("before") == "before")
                return socket
            }
            try stage.attachment.pause()
            #expect(stage.attachment.datagrams.count == 0)
            let failure = try stage.run {
                #expect(throws: BlockingSocket.Failure.self) { try socket.ask("paused") }?.code
            }
            #expect(failure == EPERM)
            try stage.attachment.resume()
            // The refusal's ICMP message waits in the old socket.
            #expect(try stage.run { try ProgramSocket(to: endpoint).ask("after") } == "after")
            #expect(server.arrived == ["before", "after"])
        }
    }

    @Test func aPinnedNameOpensItsPortsUntilItIsRevoked() throws {
        let policy = Policy(rules: [
            Self.rule("service.example", ports: PortRange(4_444)!),
            Self.rule("other.example", ports: PortRange(5_555)!),
        ])
        try DatagramStage.with(policy) { stage in
            let servers = try [4_444, 5_555].map { try DatagramServer(stage, port: $0) }
            defer { servers.forEach { $0.close() } }
            let (endpoint, other) = (servers[0].endpoint, servers[1].endpoint)
            func failure(_ endpoint: Endpoint) throws -> CInt? {
                try stage.run {
                    let socket = try ProgramSocket(to: endpoint)
                    return #expect(throws: BlockingSocket.Failure.self) { try socket.ask("no") }?.code
                }
            }
            #expect(try failure(endpoint) == EPERM)  // not resolved
            try stage.attachment.pinner.pin([endpoint.address], for: name, ttl: 60)
            let socket = try stage.run {
                let socket = try ProgramSocket(to: endpoint)
                #expect(try socket.ask("yes") == "yes")
                return socket
            }
            #expect(stage.events(.connectionAllowed).first?.host == "service.example")
            // A port that another name's rule lists: past the kernel, refused by the relay.
            #expect(try failure(other) == EHOSTUNREACH)
            try stage.attachment.replacePolicy(with: CompiledPolicy(Policy(rules: [policy.rules[1]]), generation: 2))
            #expect(stage.attachment.datagrams.count == 0)
            let code = try stage.run {
                #expect(throws: BlockingSocket.Failure.self) { try socket.ask("no") }?.code
            }
            // The kernel's flow lives on, and leads to the relay alone.
            #expect(code == EHOSTUNREACH || code == EPERM)
            #expect(servers.map(\.arrived) == [["yes"], []])
        }
    }

    @Test func silentFlowsEnd() throws {
        var limits = Datapath.Attachment.Limits()
        limits.datagramIdleSeconds = 1
        limits.answeredDatagramIdleSeconds = 3
        try DatagramStage.with(Self.everything, limits: limits) { stage in
            let (server, mute) = (try DatagramServer(stage), try DatagramServer(stage, port: 5_555))
            defer { [server, mute].forEach { $0.close() } }
            mute.isSilent = true
            let (endpoint, silent) = (server.endpoint, mute.endpoint)
            let sockets = try stage.run {
                let sockets = [try ProgramSocket(to: endpoint), try ProgramSocket(to: silent)]
                #expect(try sockets[0].ask("hello") == "hello")
                try sockets[1].send("hello?")
                return sockets
            }
            try stage.serve(milliseconds: 300)
            #expect(stage.attachment.datagrams.count == 2)
            try stage.serve(milliseconds: 1_700)
            #expect(stage.events(.connectionClosed).map(\.port) == [5_555])
            try stage.serve(milliseconds: 2_000)
            #expect(stage.attachment.datagrams.count == 0)
            // It begins anew when the program goes on.
            #expect(try stage.run { try sockets[0].ask("again") } == "again")
            #expect(stage.events(.connectionAllowed).count == 3)
        }
    }

    @Test func theLongestSilentMakesRoom() throws {
        var limits = Datapath.Attachment.Limits()
        limits.maximumDatagramFlows = 4
        try DatagramStage.with(Self.everything, limits: limits) { stage in
            let server = try DatagramServer(stage)
            defer { server.close() }
            let endpoint = server.endpoint
            let sockets = try stage.run {
                try (0..<8).map { number in
                    let socket = try ProgramSocket(to: endpoint)
                    #expect(try socket.ask("\(number)") == "\(number)")
                    return socket
                }
            }
            #expect(stage.attachment.datagrams.count == 4)
            #expect(stage.events(.connectionClosed).count == 4)
            #expect(try stage.run { try sockets[7].ask("last") } == "last")
            #expect(stage.events(.connectionAllowed).count == 8)
            #expect(try stage.run { try sockets[0].ask("first") } == "first")
            #expect(stage.events(.connectionAllowed).count == 9)
            #expect(stage.attachment.datagrams.count == 4)
        }
    }

    @Test(arguments: DatagramStage.outside) func manyFlowsAtOnce(address: IPAddress) throws {
        try DatagramStage.with(Self.everything) { stage in
            let server = try DatagramServer(stage, address)
            defer { server.close() }
            let endpoint = server.endpoint
            let answered = try stage.run {
                let sockets = try (0..<300).map { _ in try ProgramSocket(to: endpoint) }
                for (number, socket) in sockets.enumerated() { try socket.send("\(number)") }
                return sockets.enumerated().count { (try? $1.receive()) == "\($0)" }
            }
            #expect(answered == 300)
            #expect(server.arrived.count == 300)
            #expect(Set(server.peers).count == 300)
        }
    }

    @Test func newFlowsAreLimited() throws {
        var limits = Datapath.Attachment.Limits()
        limits.datagramFlowsPerSecond = 3
        try DatagramStage.with(Self.everything, limits: limits) { stage in
            let server = try DatagramServer(stage)
            defer { server.close() }
            server.isSilent = true
            let endpoint = server.endpoint
            let sockets = try stage.run {
                try (0..<50).map { number in
                    let socket = try ProgramSocket(to: endpoint)
                    try socket.send("\(number)")
                    return socket
                }
            }
            try stage.serve(milliseconds: 100)
            #expect((6...12).contains(server.arrived.count))
            // Those that began are not held back.
            let before = server.arrived.count
            try stage.run { try (0..<50).forEach { try sockets[0].send("more \($0)") } }
            try stage.serve(milliseconds: 100)
            #expect(server.arrived.count == before + 50)
        }
    }

    @Test func waitingBytesAreShared() throws {
        var limits = Datapath.Attachment.Limits()
        #expect(DatagramFlows(loop: try .init(), limits: limits).makeRoom() == 416 * 1024)
        limits.pendingDatagramBytes = 17 << 20  // 16 of them are the least that 1024 flows get
        #expect(DatagramFlows(loop: try .init(), limits: limits).makeRoom() == 80 * 1024)
        limits.pendingDatagramBytes = 64 << 10
        #expect(DatagramFlows(loop: try .init(), limits: limits).makeRoom() == 16 * 1024)
    }

    @Test func aDatagramToTheRelayItselfGoesNowhere() throws {
        try DatagramStage.with(Self.everything) { stage in
            for loopback in ["127.0.0.1", "::1"] {
                let endpoint = Endpoint(IPAddress(loopback)!, 64_117)
                try stage.run { try ProgramSocket(to: endpoint).send("nobody") }
            }
            try stage.serve(milliseconds: 100)
            #expect(stage.attachment.datagrams.count == 0)
            #expect(stage.events(.connectionAllowed).isEmpty)
        }
    }
}

@Suite struct UnreachableNoticeTests {
    /// As tcpdump reads it: ICMP host 198.51.100.2 unreachable - admin prohibited, checksums good.
    @Test func aNoticeOverIPv4() {
        let message = UnreachableNotice.prohibited.message(
            from: Endpoint(IPAddress("10.0.0.2")!, 5_000),
            to: Endpoint(IPAddress("127.0.0.1")!, 64_117)
        )
        #expect(message.prefix(2) == [3, 13])
        #expect(message.count == 36)
        #expect(sum(message) == 0xffff)
        #expect(sum(Array(message[8..<28])) == 0xffff)
        #expect(message[17] == 17)
        #expect(Array(message[20..<28]) == [10, 0, 0, 2, 127, 0, 0, 1])
        #expect(Array(message[28...]) == [0x13, 0x88, 0xfa, 0x75, 0, 8, 0, 0])
    }

    @Test func aNoticeOverIPv6() {
        let message = UnreachableNotice.portUnreachable.message(
            from: Endpoint(IPAddress("2001:db8::2")!, 5_000),
            to: Endpoint(IPAddress("::1")!, 64_117)
        )
        #expect(message.prefix(8) == [1, 4, 0, 0, 0, 0, 0, 0])
        #expect(message.count == 56)
        #expect(Array(message[8..<16]) == [0x60, 0, 0, 0, 0, 8, 17, 64])
        #expect(Array(message[16..<32]) == IPAddress("2001:db8::2")!.networkBytes)
    }

    private func sum(_ bytes: [UInt8]) -> UInt32 {
        var sum = stride(from: 0, to: bytes.count, by: 2).reduce(UInt32(0)) {
            $0 + UInt32(bytes[$1]) << 8 + UInt32(bytes[$1 + 1])
        }
        while sum > 0xffff { sum = sum >> 16 + sum & 0xffff }
        return sum
    }
}
