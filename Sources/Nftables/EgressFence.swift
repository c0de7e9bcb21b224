import CNftnl
import Glibc
public import NetPrimitives

/// The table `netdev sandgate` of a network namespace: lets nothing out of its devices but what the inet chains have
/// judged, and ARP. Packet sockets (CAP_NET_RAW) send behind every inet chain, with PACKET_QDISC_BYPASS too; not behind
/// these, which sit on the devices (Linux 5.16 and newer).
///
///     inet sandgate, chain post    what passed: mark and priority set to the fence's pass
///     netdev sandgate, egress      that pass: taken off, accepted; ARP: accepted; anything else: dropped
///
/// ARP frames can carry a few bytes to machines on the same link; without ARP there is no IPv4. They are told by what is in the
/// frame and by its length: to a packet socket its caller says what protocol it has, and says ARP of what he likes.
public final class EgressFence {
    private let netlink: NetlinkSocket
    private let pass: UpstreamPass
    private let devices: [(name: String, index: UInt32)]

    private static let table = "sandgate"

    /// A fence on devices of the namespace that `netlink` was opened in, which has no other use then. `pass` is that of the
    /// namespace's ``SandboxTable``.
    public init(netlink: NetlinkSocket, devices: [(name: String, index: UInt32)], pass: UpstreamPass) {
        self.netlink = netlink
        self.devices = devices
        self.pass = pass
    }

    /// Puts it up, or takes over what a process before this one put up. While the namespace's table gives another pass,
    /// nothing leaves.
    public func install() throws(NetlinkError) {
        do {
            try install(mayExist: false)
        } catch  where error.errno == EEXIST {
            try install(mayExist: true)
        }
    }

    private func install(mayExist: Bool) throws(NetlinkError) {
        var batch = Batch(family: Int32(NFPROTO_NETDEV))
        if mayExist {
            batch.adoptTable(Self.table, isOwned: true)
        } else {
            batch.createTable(Self.table, isOwned: true)
        }
        for device in devices {
            let chain = Chain(
                name: "egress_\(device.index)",
                attachment: .init(kind: .filter, hook: .egress, priority: 0, policy: .drop, device: device.name)
            )
            batch.create(chain, table: Self.table, mayExist: mayExist)
            if mayExist { batch.flush(chain, table: Self.table) }
            for rule in rules { batch.add(rule, to: chain, table: Self.table) }
        }
        try netlink.commit(batch)
    }

    private var rules: [Rule] {
        [
            Rule(
                "meta mark \(pass.mark) meta priority \(pass.priority) meta mark set 0 meta priority set 0 accept",
                .from(pass),
                .withoutPass,
                .accept
            ),
            Rule("meta protocol arp ether type arp meta length 42 accept", .addressResolution, .accept),
            Rule("counter", [.counter]),
        ]
    }
}
