import Glibc
import Namespaces
import NetPrimitives
import Reactor
import Testing

@testable import Nftables

/// Ways out that a ruleset is easily written with. Each first works without ours.
@Suite struct AttackTests {
    private let name = try! DomainName("pinned.example")

    /// A socket bound to the outer device takes what is redirected there (threats T11).
    @Test func boundToTheOuterDevice() throws {
        let lab = try TrafficLab()
        func attack() {
            for address in TrafficLab.outside {
                _ = Probe.send(Endpoint(address, 53), from: TrafficLab.device)
                _ = Probe.connectError(Endpoint(address, 53), from: TrafficLab.device, milliseconds: 50)
                _ = Probe.connectError(Endpoint(address, 443), from: TrafficLab.device, milliseconds: 50)
            }
            for loopback in [IPAddress(v4: 0x7f00_0001), IPAddress(v6: 1)] {
                _ = Probe.send(Endpoint(loopback, 9), from: TrafficLab.device)
            }
        }
        try lab.inside {
            try shell(
                """
                nft -f - <<'END'
                table inet naive {
                    chain nat_out {
                        type nat hook output priority -110
                        meta l4proto { tcp, udp } th dport { 53, 443 } redirect to :1080
                    }
                    chain out {
                        type filter hook output priority 0; policy drop
                        ct status dnat accept
                        oif lo accept
                    }
                }
                END
                """
            )
            attack()
        }
        let leaked = try lab.packetsOutside()
        #expect(leaked >= 6)
        _ = try lab.inside { try shell("nft delete table inet naive") }
        try lab.guarded { table, _ in
            attack()
            try table.installRedirects()
            try table.pin(TrafficLab.outside.map { ($0, timeoutSeconds: 60, name: name) })
            attack()
            try table.pause()
            attack()
        }
        #expect(try lab.packetsOutside() == leaked)
    }

    /// Only the kernel discovers neighbours; the same packets from a program would carry something.
    @Test func neighbourDiscoveryAsACarrier() throws {
        let lab = try TrafficLab()
        let groups = [IPAddress("ff02::1:ff00:1")!, IPAddress("ff02::1")!, SandboxNetwork.Plan.gateway6]
        func attack() -> [CInt] {
            groups.flatMap { group in
                [135, 136, 133, 143].map { type in
                    Probe.send(group, protocolNumber: 58, [type, 0, 0, 0, 1, 2, 3, 4] + group.networkBytes, hops: 255)
                }
            }
        }
        try lab.inside { #expect(attack().allSatisfy { $0 == 0 }) }
        let leaked = try lab.packetsOutside()
        #expect(leaked >= 12)
        try lab.guarded { table, _ in
            let log = try RefusalLog(group: TrafficLab.group)
            #expect(attack().allSatisfy { $0 == EPERM })
            try table.installRedirects()
            #expect(attack().allSatisfy { $0 == EPERM })
            var packets: [RefusedPacket] = []
            while packets.count < 24, Probe.isReadable(log.descriptor, milliseconds: 1_000) {
                packets += try log.read()
            }
            #expect(packets.count == 24)
        }
        #expect(try lab.packetsOutside() == leaked)
    }

    /// What a router behind the sandbox's namespace sends never passes the output hook.
    @Test func forwarding() throws {
        let lab = try TrafficLab()
        let inner = try NetworkNamespace.anonymous()
        _ = try lab.inside {
            try shell(
                """
                set -e
                ip link add inner type veth peer name uplink
                ip link set uplink netns /proc/$PPID/fd/\(inner.descriptor)
                ip addr add 10.9.0.1/24 dev inner
                ip addr add fd09::1/64 dev inner nodad
                ip link set inner up
                echo 1 > /proc/sys/net/ipv4/ip_forward
                echo 1 > /proc/sys/net/ipv6/conf/all/forwarding
                """
            )
        }
        _ = try inner.enter {
            try shell(
                """
                set -e
                ip addr add 10.9.0.2/24 dev uplink
                ip addr add fd09::2/64 dev uplink nodad
                ip link set uplink up
                ip route add default via 10.9.0.1
                ip route add default via fd09::1
                """
            )
        }
        func attack() throws {
            try inner.enter {
                for address in TrafficLab.outside {
                    _ = Probe.send(Endpoint(address, 9))
                    _ = Probe.send(Endpoint(address, 53))
                }
            }
        }
        try attack()
        // The first of them wait for neighbours to be found.
        let leaked = 2 * TrafficLab.outside.count
        for _ in 0..<1_000 where try lab.datagramsOutside() < leaked { usleep(10_000) }
        #expect(try lab.datagramsOutside() == leaked)
        try lab.guarded { table, _ in
            try table.installRedirects()
            try table.pin(TrafficLab.outside.map { ($0, timeoutSeconds: 60, name: name) })
            try attack()
            usleep(200_000)
        }
        #expect(try lab.datagramsOutside() == leaked)
    }

    /// Nothing from outside opens a way: not to our listeners, not to the sandbox's own (threats T12).
    @Test func theOtherEndSpeaksFirst() throws {
        let gateway = IPAddress("10.8.0.1")!
        let sandbox = IPAddress("10.8.0.2")!
        let outside = try NetworkNamespace.anonymous()
        let inside = try NetworkNamespace.anonymous()
        _ = try inside.enter {
            try shell(
                """
                set -e
                ip link set lo up
                ip link add eth0 type veth peer name node0
                ip link set node0 netns /proc/$PPID/fd/\(outside.descriptor)
                ip addr add \(sandbox)/24 dev eth0
                ip addr add fd08::2/64 dev eth0 nodad
                ip link set eth0 up
                """
            )
        }
        _ = try outside.enter {
            try shell(
                """
                set -e
                ip addr add \(gateway)/24 dev node0
                ip addr add fd08::1/64 dev node0 nodad
                ip link set node0 up
                """
            )
        }
        let addresses = [sandbox, IPAddress("fd08::2")!]
        try inside.enter {
            let services = try addresses.map { try Sockets.tcpListener(Endpoint($0, 8_080)) }
            let inboxes = try addresses.map { try Sockets.udpSocket(Endpoint($0, 8_081)) }
            defer { (services + inboxes).forEach { close($0) } }
            try outside.enter {
                for address in addresses {
                    // The link was made a moment ago, and the address is asked for again after a second.
                    #expect(Probe.connectError(Endpoint(address, 8_080), milliseconds: 10_000) == 0)
                    #expect(Probe.send(Endpoint(address, 8_081)) == 0)
                }
            }
            for inbox in inboxes {
                #expect(Probe.isReadable(inbox, milliseconds: 1_000))
                _ = Sockets.receiveDatagram(inbox, upTo: 512)
            }
            let table = SandboxTable(
                netlink: try NetlinkSocket(),
                ports: TrafficLab.ports,
                nflogGroup: TrafficLab.group,
                gateways: [gateway, IPAddress("fd08::1")!]
            )
            try table.closeDoor()
            let listeners = try TrafficLab.Listeners()
            try table.installRedirects()
            try outside.enter {
                try shell("ip neigh flush dev node0")
                for address in addresses {
                    #expect(Probe.send(Endpoint(address, 8_081)) == 0)
                    for port: UInt16 in [8_080, 1053, 1080, 1081] {
                        #expect(Probe.connectError(Endpoint(address, port), milliseconds: 100) == ETIMEDOUT)
                    }
                }
                // IPv6 is not dead: the neighbour was found, by the kernels alone.
                #expect(try shell("ip -6 neigh show fd08::2").contains("lladdr"))
                #expect(try shell("ip -4 neigh show \(sandbox)").contains("lladdr"))
            }
            for inbox in inboxes { #expect(!Probe.isReadable(inbox, milliseconds: 100)) }
            withExtendedLifetime(listeners) {}
        }
    }

    /// Renewing pins and changing possible addresses refuses nothing that stays allowed; closing the door under load
    /// lets nothing out.
    @Test func changesUnderLoad() throws {
        let lab = try TrafficLab()
        try lab.guarded { table, listeners in
            try table.installRedirects()
            let pinned = Endpoint(TrafficLab.outside[0], 443)
            let possible = Endpoint(IPAddress("198.51.100.7")!, 443)
            let denied = Endpoint(IPAddress("198.51.100.1")!, 9)
            let other = try DomainName("other.example")
            try table.pin([(pinned.address, timeoutSeconds: 60, name: name)])
            try table.setPossible([possible.address...possible.address])
            let load = LoadThread(pinned: pinned, possible: possible, denied: denied, proxy: listeners.proxy[0])
            try load.start(in: lab.network.namespace)
            for round in 0..<UInt32(400) {
                try table.pin([(pinned.address, timeoutSeconds: 60, name: round.isMultiple(of: 2) ? other : name)])
                let near = IPAddress(v4: 0xc633_6400 + 8 + round % 100)
                try table.setPossible([possible.address...possible.address, near.next!...near.next!.next!])
                usleep(500)
            }
            let counts = load.stop()
            #expect(counts.connected > 200)
            #expect(counts.refused == 0)
            #expect(counts.deniedSent == 0)
        }
        #expect(try lab.packetsOutside() == 0)
    }
}
