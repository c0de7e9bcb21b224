import Glibc
import Namespaces
import NetPrimitives
import Reactor

@testable import Nftables

/// A sandbox's namespace with listeners where ours would be, and the other end of its only way out, where what arrives
/// is counted.
final class TrafficLab {
    static let ports = ListenerPorts(dns: 1053, proxy: 1080, datagrams: 1082)
    static let device = SandboxNetwork.Plan.device
    static let group: UInt16 = 64
    static let outside = [IPAddress("203.0.113.9")!, IPAddress("2001:db8::9")!]
    private static let loopbacks = [IPAddress(v4: 0x7f00_0001), IPAddress(v6: 1)]

    let network: SandboxNetwork

    init() throws {
        network = try SandboxNetwork.make()
        try network.deadEnd.enter {
            _ = try shell(
                """
                nft -f - <<'END'
                table netdev watch {
                    counter any { }
                    counter datagrams { }
                    chain arriving {
                        type filter hook ingress device \(SandboxNetwork.Plan.deadEndDevice) priority 0
                        meta protocol { ip, ip6 } counter name any
                        meta l4proto udp counter name datagrams
                    }
                }
                END
                """
            )
        }
    }

    /// IP packets that left the sandbox so far.
    func packetsOutside() throws -> Int { try countOutside("any") }

    /// Datagrams of UDP that left the sandbox so far: what the kernel says to its neighbours by itself, at times of its
    /// own choice, is not among them.
    func datagramsOutside() throws -> Int { try countOutside("datagrams") }

    private func countOutside(_ counter: String) throws -> Int {
        let listing = try network.deadEnd.enter { try shell("nft list counter netdev watch \(counter)") }
        let words = listing.split(whereSeparator: \.isWhitespace)
        guard let index = words.firstIndex(of: "packets"), let count = Int(words[index + 1]) else {
            throw ShellFailure(command: "nft list counter", output: listing)
        }
        return count
    }

    /// Runs `body` in the sandbox's namespace.
    func inside<Result>(_ body: () throws -> Result) throws -> Result {
        try network.namespace.enter(body)
    }

    /// Runs `body` in the sandbox's namespace with our table in force and our listeners open.
    func guarded(_ body: (SandboxTable, Listeners) throws -> Void) throws {
        try inside {
            let table = SandboxTable(
                netlink: try NetlinkSocket(),
                ports: Self.ports,
                nflogGroup: Self.group,
                gateways: [SandboxNetwork.Plan.gateway4, SandboxNetwork.Plan.gateway6]
            )
            try table.closeDoor()
            try body(table, try Listeners())
        }
    }

    /// Our listeners' sockets, with nobody behind them but the test.
    final class Listeners {
        let dnsUDP: [CInt]
        let dnsTCP: [CInt]
        let proxy: [CInt]
        let datagrams: [CInt]

        init() throws {
            let ports = TrafficLab.ports
            dnsUDP = try loopbacks.map { try Sockets.udpSocket(Endpoint($0, ports.dns)) }
            dnsTCP = try loopbacks.map { try Sockets.tcpListener(Endpoint($0, ports.dns)) }
            proxy = try loopbacks.map { try Sockets.tcpListener(Endpoint($0, ports.proxy)) }
            datagrams = try loopbacks.map { try Sockets.udpSocket(Endpoint($0, ports.datagrams)) }
        }

        deinit {
            // A child that another test is about to start may still have them: shut, nobody listens all the same.
            (dnsTCP + proxy).forEach { shutdown($0, CInt(SHUT_RDWR)) }
            (dnsUDP + dnsTCP + proxy + datagrams).forEach { close($0) }
        }
    }
}
