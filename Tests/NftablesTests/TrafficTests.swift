import Glibc
import NetPrimitives
import Reactor
import Testing

@testable import Nftables

/// Real packets against the real ruleset.
@Suite struct TrafficTests {
    private let name = try! DomainName("pinned.example")

    @Test func withoutUsItGetsOut() throws {
        let lab = try TrafficLab()
        try lab.inside {
            for address in TrafficLab.outside {
                #expect(Probe.send(Endpoint(address, 9)) == 0)
                #expect(Probe.connectError(Endpoint(address, 443), milliseconds: 100) == ETIMEDOUT)
            }
        }
        #expect(try lab.packetsOutside() >= 4)
    }

    @Test func dnsIsOurs() throws {
        let lab = try TrafficLab()
        try lab.guarded { table, listeners in
            try table.installRedirects()
            let servers = TrafficLab.outside + [IPAddress("127.0.0.11")!]
            for server in servers {
                let listener = server.family == .v4 ? 0 : 1
                let answer = Probe.ask(Endpoint(server, 53), [1]) {
                    guard Probe.isReadable(listeners.dnsUDP[listener], milliseconds: 1_000),
                        case .datagram([1], let peer) = Sockets.receiveDatagram(listeners.dnsUDP[listener], upTo: 512)
                    else { return }
                    _ = Sockets.sendDatagram(listeners.dnsUDP[listener], [2], to: peer)
                }
                #expect(answer == [2])
                let client = try Probe.connect(Endpoint(server, 53)).get()
                let accepted = try #require(Probe.accept(listeners.dnsTCP[listener]))
                #expect(accepted.destination == Endpoint(server, 53))
                [client, accepted.descriptor].forEach { close($0) }
            }
        }
        #expect(try lab.packetsOutside() == 0)
    }

    @Test func pinnedAndPossibleAddressesReachTheProxy() throws {
        let lab = try TrafficLab()
        try lab.guarded { table, listeners in
            try table.installRedirects()
            func expectProxied(_ destination: Endpoint) throws {
                let listener = listeners.proxy[destination.address.family == .v4 ? 0 : 1]
                let client = try Probe.connect(destination).get()
                let accepted = try #require(Probe.accept(listener))
                #expect(accepted.destination == destination)
                _ = Sockets.send(accepted.descriptor, [7])
                #expect(Probe.isReadable(client, milliseconds: 1_000))
                [client, accepted.descriptor].forEach { close($0) }
            }
            for address in TrafficLab.outside {
                #expect(Probe.connectError(Endpoint(address, 443)) == ECONNREFUSED)
                try table.pin([(address, timeoutSeconds: 60, name: name)])
                try expectProxied(Endpoint(address, 443))
                #expect(Probe.connectError(Endpoint(address.next!, 443)) == ECONNREFUSED)
                #expect(Probe.send(Endpoint(address, 443)) == EPERM)
                try table.unpin([address])
                #expect(Probe.connectError(Endpoint(address, 443)) == ECONNREFUSED)
                try table.setPossible([address.next!...address.next!.next!])
                #expect(Probe.connectError(Endpoint(address, 443)) == ECONNREFUSED)
                try expectProxied(Endpoint(address.next!, 22))
                try expectProxied(Endpoint(address.next!.next!, 22))
                #expect(Probe.connectError(Endpoint(address.next!.next!.next!, 22)) == ECONNREFUSED)
            }
            try table.setPossible([])
            #expect(Probe.connectError(Endpoint(TrafficLab.outside[1].next!, 22)) == ECONNREFUSED)
        }
        #expect(try lab.packetsOutside() == 0)
    }

    @Test(arguments: [SandboxRuleset.Door.closed, .open])
    func theRestIsRefusedAtOnceAndRecorded(door: SandboxRuleset.Door) throws {
        let lab = try TrafficLab()
        try lab.guarded { table, listeners in
            if door == .open { try table.installRedirects() }
            let log = try RefusalLog(group: TrafficLab.group)
            for address in TrafficLab.outside {
                let start = ContinuousClock.now
                #expect(Probe.connectError(Endpoint(address, 443)) == ECONNREFUSED)
                #expect(Probe.send(Endpoint(address, 4_000)) == EPERM)
                // An echo request, and a protocol that nobody has heard of.
                let isIPv4 = address.family == .v4
                let echo: [UInt8] = [isIPv4 ? 8 : 128, 0, 0, 0, 0, 1, 0, 1]
                #expect(Probe.send(address, protocolNumber: CInt(isIPv4 ? 1 : 58), echo) == EPERM)
                #expect(Probe.send(address, protocolNumber: 253, [1, 2, 3, 4]) == EPERM)
                #expect(ContinuousClock.now - start < .milliseconds(200))
                let expected: [(UInt8, UInt16?)] = [(6, 443), (17, 4_000), (isIPv4 ? 1 : 58, nil), (253, nil)]
                var packets: [RefusedPacket] = []
                while packets.count < 4, Probe.isReadable(log.descriptor, milliseconds: 1_000) {
                    packets += try log.read()
                }
                #expect(packets.map(\.ipProtocol) == expected.map(\.0))
                #expect(packets.map(\.destinationPort) == expected.map(\.1))
                #expect(packets.allSatisfy { $0.destination == address && $0.uid == 0 && $0.family == address.family })
                #expect(packets.allSatisfy { $0.prefix == SandboxRuleset.logPrefix })
            }
            #expect(log.takeLostCount() == 0)
            #expect(try shell("nft list chain inet sandgate refused").contains("counter packets 8 "))
        }
        #expect(try lab.packetsOutside() == 0)
    }

    @Test func recordsAreLimitedAndLossIsCounted() throws {
        let lab = try TrafficLab()
        try lab.inside {
            let limit = RefusalLimit(packetsPerSecond: 1, burst: 400)
            let table = SandboxTable(
                netlink: try NetlinkSocket(),
                ports: TrafficLab.ports,
                nflogGroup: TrafficLab.group,
                refusalLimit: limit
            )
            try table.closeDoor()
            // A socket with little room, and nobody reading.
            let log = try RefusalLog(
                socket: try NetlinkSocket(bus: NetlinkSocket.netfilter, bufferSize: 4_096),
                group: 64
            )
            for _ in 0..<1_000 { _ = Probe.send(Endpoint(TrafficLab.outside[0], 9)) }
            usleep(300_000)
            var count = 0
            while case let packets = try log.read(), !packets.isEmpty { count += packets.count }
            // What is lost shows with the next packet.
            usleep(1_500_000)
            _ = Probe.send(Endpoint(TrafficLab.outside[0], 9))
            while Probe.isReadable(log.descriptor, milliseconds: 500) { count += try log.read().count }
            let lost = log.takeLostCount()
            #expect(lost > 0)
            #expect((401...404).contains(count + Int(lost)))
            #expect(log.takeLostCount() == 0)
            #expect(try shell("nft list chain inet sandgate refused").contains("counter packets 1001 "))
        }
    }

    /// The kernel holds back up to sixteen packets for a fiftieth of a second.
    @Test func atTheEndNothingIsHeldBack() throws {
        let lab = try TrafficLab()
        try lab.guarded { table, listeners in
            for count in [1, 5, 15, 16, 17, 40] {
                let log = try RefusalLog(group: TrafficLab.group)
                log.collect()
                for _ in 0..<count { #expect(Probe.send(Endpoint(TrafficLab.outside[0], 9)) == EPERM) }
                log.end()
                var told = 0
                while case let packets = try log.read(), !packets.isEmpty { told += packets.count }
                #expect(told == count)
                #expect(log.takeLostCount() == 0)
                // Nobody is told of what comes after, and another may bind the group.
                #expect(Probe.send(Endpoint(TrafficLab.outside[0], 9)) == EPERM)
                #expect(try log.read().isEmpty)
            }
        }
    }

    @Test func aSecondReaderIsRefused() throws {
        try inNamespace {
            let log = try RefusalLog(group: 7)
            let error = #expect(throws: NetlinkError.self) { try RefusalLog(group: 7) }
            #expect(error?.description.hasPrefix("cannot bind NFLOG group 7: ") == true)
            withExtendedLifetime(log) {}
        }
    }

    @Test func aClosedDoorEndsWhatWasOpen() throws {
        let lab = try TrafficLab()
        try lab.guarded { table, listeners in
            try table.installRedirects()
            let own = try Sockets.tcpListener(Endpoint(IPAddress(v4: 0x7f00_0001), 8_080))
            defer { close(own) }
            let destination = Endpoint(TrafficLab.outside[0], 443)
            try table.pin([(destination.address, timeoutSeconds: 60, name: name)])
            let proxied = try Probe.connect(destination).get()
            let explicit = try Probe.connect(Endpoint(IPAddress(v4: 0x7f00_0001), TrafficLab.ports.proxy)).get()
            defer { [proxied, explicit].forEach { close($0) } }

            try table.pause()
            for client in [proxied, explicit] {
                _ = Sockets.send(client, [1])
                #expect(Probe.isReadable(client, milliseconds: 1_000))
                #expect(Sockets.receive(client, upTo: 1) == .failed(ECONNRESET))
            }
            #expect(Probe.connectError(destination) == ECONNREFUSED)
            #expect(
                Probe.connectError(Endpoint(IPAddress(v4: 0x7f00_0001), TrafficLab.ports.proxy)) == ECONNREFUSED
            )
            #expect(Probe.connectError(Endpoint(IPAddress(v6: 1), TrafficLab.ports.dns)) == ECONNREFUSED)
            #expect(Probe.send(Endpoint(TrafficLab.outside[1], 53)) == EPERM)
            // The sandbox's own services on loopback are none of our business.
            #expect(Probe.connectError(Endpoint(IPAddress(v4: 0x7f00_0001), 8_080)) == 0)

            try table.resume()
            #expect(Probe.connectError(destination) == 0)
            #expect(Probe.connectError(Endpoint(IPAddress(v4: 0x7f00_0001), TrafficLab.ports.proxy)) == 0)
        }
        #expect(try lab.packetsOutside() == 0)
    }

    /// What a crash leaves: the redirect leads to a closed port.
    @Test func withoutListenersEverythingIsRefused() throws {
        let lab = try TrafficLab()
        try lab.guarded { table, _ in
            try table.installRedirects()
            try table.pin(TrafficLab.outside.map { ($0, timeoutSeconds: 60, name: name) })
        }
        try lab.inside {
            for address in TrafficLab.outside {
                #expect(Probe.connectError(Endpoint(address, 443)) == ECONNREFUSED)
                #expect(Probe.connectError(Endpoint(address, 53)) == ECONNREFUSED)
                #expect(Probe.connectError(Endpoint(address, 444)) == ECONNREFUSED)
            }
        }
        #expect(try lab.packetsOutside() == 0)
    }
}
