import Glibc
import NetPrimitives
import Reactor
import Testing

@testable import Nftables

/// Datagrams that a policy may allow reach the relay, and the kernel tells where they were going.
@Suite struct DatagramTests {
    private let name = try! DomainName("pinned.example")

    private func receive(_ descriptor: CInt) -> (bytes: [UInt8], source: Endpoint)? {
        guard Probe.isReadable(descriptor, milliseconds: 1_500),
            case .datagram(let bytes, let source) = Sockets.receiveDatagram(descriptor, upTo: 65_536)
        else { return nil }
        return (bytes, source)
    }

    private func listener(_ family: IPAddress.Family) -> Endpoint {
        Endpoint(family == .v4 ? IPAddress(v4: 0x7f00_0001) : IPAddress(v6: 1), TrafficLab.ports.datagrams)
    }

    @Test func onlyWhatMayBeAllowedReachesTheRelay() throws {
        let lab = try TrafficLab()
        try lab.guarded { table, listeners in
            try table.installRedirects()
            for address in TrafficLab.outside { #expect(Probe.send(Endpoint(address, 123)) == EPERM) }
            try table.pin(TrafficLab.outside.map { ($0, 60, name) })
            for address in TrafficLab.outside { #expect(Probe.send(Endpoint(address, 123)) == EPERM) }
            try table.setDatagrams(pinnedPorts: [PortRange(100, 200)!], possiblePorts: [], [])
            for (index, address) in TrafficLab.outside.enumerated() {
                #expect(Probe.send(Endpoint(address, 123), [1]) == 0)
                #expect(receive(listeners.datagrams[index])?.bytes == [1])
                for port: UInt16 in [99, 201, 443] { #expect(Probe.send(Endpoint(address, port)) == EPERM) }
            }
            try table.unpin(TrafficLab.outside)
            let all = TrafficLab.outside.map { $0...$0 }
            try table.setDatagrams(pinnedPorts: [], possiblePorts: [PortRange(443)!, PortRange(65_535)!], all)
            for (index, address) in TrafficLab.outside.enumerated() {
                for port: UInt16 in [443, 65_535] {
                    #expect(Probe.send(Endpoint(address, port), [2]) == 0)
                    #expect(receive(listeners.datagrams[index])?.bytes == [2])
                }
                for port: UInt16 in [123, 442, 444, 65_534] { #expect(Probe.send(Endpoint(address, port)) == EPERM) }
            }
            try table.setDatagrams(pinnedPorts: [], possiblePorts: [], [])
            for address in TrafficLab.outside { #expect(Probe.send(Endpoint(address, 443)) == EPERM) }
        }
        #expect(try lab.packetsOutside() == 0)
    }

    @Test func theKernelTellsWhereItWasGoing() throws {
        let lab = try TrafficLab()
        try lab.guarded { table, listeners in
            try table.installRedirects()
            try table.setDatagrams(
                pinnedPorts: [],
                possiblePorts: [.all],
                TrafficLab.outside.map { $0...$0 }
            )
            let conntrack = Conntrack(socket: try NetlinkSocket())
            for (index, address) in TrafficLab.outside.enumerated() {
                let descriptor = listeners.datagrams[index]
                let local = listener(address.family)
                let source = Endpoint(IPAddress(family: address.family, value: 0)!, 4_000)
                let client = try Sockets.udpSocket(source)
                defer { close(client) }
                // One socket, two destinations: two flows, told apart by what the relay sees as their source.
                var sources: Set<Endpoint> = []
                for port: UInt16 in [123, 443] {
                    _ = Sockets.sendDatagram(client, [UInt8(port % 256)], to: Endpoint(address, port))
                    let arrived = try #require(receive(descriptor))
                    sources.insert(arrived.source)
                    let found = try #require(try conntrack.redirection(from: arrived.source, to: local))
                    #expect(found.destination == Endpoint(address, port))
                    #expect(found.timeoutSeconds > 0 && found.timeoutSeconds <= 30)
                    // What the relay answers comes from where the program sent to.
                    _ = Sockets.sendDatagram(descriptor, [9], to: arrived.source)
                    #expect(receive(client)?.source == Endpoint(address, port))
                }
                #expect(sources.count == 2)
            }
        }
        #expect(try lab.packetsOutside() == 0)
    }

    @Test func nothingIsKnownOfWhatWasNotRedirected() throws {
        let lab = try TrafficLab()
        try lab.guarded { table, listeners in
            try table.installRedirects()
            let conntrack = Conntrack(socket: try NetlinkSocket())
            for family: IPAddress.Family in [.v4, .v6] {
                let local = listener(family)
                #expect(Probe.send(local, [1]) == 0)
                let arrived = try #require(receive(listeners.datagrams[family == .v4 ? 0 : 1]))
                #expect(try conntrack.redirection(from: arrived.source, to: local) == nil)
                #expect(try conntrack.redirection(from: Endpoint(local.address, 9), to: local) == nil)
            }
        }
    }

    @Test func aLargeDatagramArrivesWhole() throws {
        let lab = try TrafficLab()
        try lab.guarded { table, listeners in
            try table.installRedirects()
            try table.setDatagrams(pinnedPorts: [], possiblePorts: [.all], TrafficLab.outside.map { $0...$0 })
            let large = (0..<65_507).map { UInt8(truncatingIfNeeded: $0) }
            for (index, address) in TrafficLab.outside.enumerated() {
                #expect(Probe.send(Endpoint(address, 443), large) == 0)
                #expect(receive(listeners.datagrams[index])?.bytes == large)
            }
        }
        #expect(try lab.packetsOutside() == 0)
    }

    /// Behind a closed door a flow that was redirected before is refused as well.
    @Test func theClosedDoorEndsFlows() throws {
        let lab = try TrafficLab()
        try lab.guarded { table, listeners in
            try table.installRedirects()
            try table.setDatagrams(pinnedPorts: [], possiblePorts: [.all], TrafficLab.outside.map { $0...$0 })
            for (index, address) in TrafficLab.outside.enumerated() {
                let client = try Sockets.udpSocket(Endpoint(IPAddress(family: address.family, value: 0)!, 0))
                defer { close(client) }
                #expect(Sockets.sendDatagram(client, [1], to: Endpoint(address, 443)) == .bytes(1))
                #expect(receive(listeners.datagrams[index])?.bytes == [1])
                try table.pause()
                #expect(Sockets.sendDatagram(client, [2], to: Endpoint(address, 443)) == .failed(EPERM))
                #expect(Probe.send(listener(address.family)) == EPERM)
                #expect(receive(listeners.datagrams[index]) == nil)
                try table.resume()
                #expect(Sockets.sendDatagram(client, [3], to: Endpoint(address, 443)) == .bytes(1))
                #expect(receive(listeners.datagrams[index])?.bytes == [3])
            }
        }
    }

    @Test func portsAreWhatWasSaid() throws {
        try inNamespace {
            let table = try SandboxTableTests.makeTable()
            try table.closeDoor()
            for ports in ["53, 100-200, 65535", "1-65535", "443", "443, 8443"] {
                let ranges = ports.split(separator: ", ").map { PortRange(parsing: String($0))! }
                try table.setDatagrams(pinnedPorts: ranges, possiblePorts: [], [])
                let listing = try shell("nft -nn list set inet sandgate pinned_ports")
                let found = listing.split(separator: "elements = {").last?.split(separator: "}").first.map(String.init)
                let text = found?.split(separator: ",").map { $0.filter { !$0.isWhitespace } }.joined(separator: ", ")
                #expect(text == ports)
            }
            try table.setDatagrams(pinnedPorts: [], possiblePorts: [], [])
            #expect(try !shell("nft list set inet sandgate pinned_ports").contains("elements"))
        }
    }
}
