import CLinux
import CNftnl
import Glibc

/// A network device, as far as it matters here.
private struct Device {
    let index: UInt32
    var name = "?"
    /// Of a device that is made by software: `veth`.
    var kind: String?
    var isUp = false
    var hasXDP = false
    /// The device that it is a port of.
    var master: UInt32 = 0
    /// The device that it is made of, where that is in the same namespace.
    var lower: UInt32 = 0
    /// Of a tun or tap device: whether another program may take hold of it, for which it needs no privilege unless the device
    /// has an owner who it is not (tun_not_capable in the kernel's drivers/net/tun.c).
    var isForTheTaking = false

    /// Its name as ip-link(8) and tc(8) take it: its number, which they know as well, where that is not plain.
    var word: String { SidePath.isPlain(name) ? name : "if\(index)" }
    /// A name that it could have instead.
    var plainName: String { index == KernelConstants.loopbackIndex ? "lo" : "dev\(index)" }
}

/// A queueing discipline.
private struct Discipline {
    let device: UInt32
    let handle: UInt32
    let parent: UInt32
    let kind: String
}

extension SideWays {
    /// Kinds of devices that hand on what the inet hooks gave them, and send nothing else. Others are none that a sandbox
    /// has, and are asked about while they are up: macvtap and ipvtap among them, whose other end is a file, and what is
    /// written there leaves by no hook.
    private static let plainKinds: Set = [
        "veth", "bridge", "dummy", "ipvlan", "macvlan", "netkit", "tun", "vlan",
    ]
    /// Disciplines that hand on to their own device.
    private static let plainDisciplines: Set = [
        "noop", "noqueue", "pfifo", "pfifo_fast", "pfifo_head_drop", "bfifo", "fq", "fq_codel", "fq_pie", "codel",
        "pie",
        "sfq", "cake", "mq", "tbf", "netem",
    ]
    /// Those of them that may have filters, whose actions redirect.
    private static let filtering: Set = ["fq_codel", "fq_pie", "sfq", "cake"]

    /// What is on the devices of the calling thread's namespace.
    func devices() throws(NetlinkError) -> [SidePath] {
        let socket = try NetlinkSocket(bus: NETLINK_ROUTE)
        let devices = try Self.links(socket)
        let numbered = Dictionary(devices.map { ($0.index, $0) }) { first, _ in first }
        var found: [SidePath] = []
        for device in devices {
            found += Self.oddities(of: device, numbered[device.master], numbered[device.lower])
            found += try programs(of: device)
        }
        for discipline in try Self.disciplines(socket) {
            guard let device = numbered[discipline.device] else { continue }
            if !Self.plainDisciplines.contains(discipline.kind) {
                found.append(discipline.asSidePath(on: device))
            } else if Self.filtering.contains(discipline.kind), try Self.hasFilters(discipline, socket) {
                found.append(
                    SidePath(
                        what: "filters of queueing discipline \(discipline.kind) on \(device.name)",
                        remedy: "tc qdisc del dev \(device.word) root"
                    )
                )
            }
        }
        return found + (try programsOfNamespace())
    }

    /// Tun and tap devices of the calling thread's namespace whose only holder is a program that opened their file: what it writes
    /// comes from outside for the rules. Those that others may take hold of are among ``find()``.
    public static func heldDevices() throws(NetlinkError) -> Set<String> {
        let devices = try links(try NetlinkSocket(bus: NETLINK_ROUTE))
        return Set(devices.filter { $0.kind == "tun" && $0.isUp && !$0.isForTheTaking }.map(\.name))
    }

    private static func oddities(of device: Device, _ master: Device?, _ lower: Device?) -> [SidePath] {
        var found: [SidePath] = []
        let (name, word) = (device.name, device.word)
        if device.hasXDP {
            found.append(SidePath(what: "an XDP program on \(name)", remedy: "ip link set dev \(word) xdp off"))
        }
        if device.master != 0 {
            let what = "device \(name) as a port of \(master?.name ?? "another")"
            found.append(SidePath(what: what, remedy: "ip link set dev \(word) nomaster"))
        }
        if device.lower != 0, device.lower != device.index {
            let what = "device \(name), made of \(lower?.name ?? "another") in the same network"
            found.append(SidePath(what: what, remedy: "ip link del dev \(word)"))
        } else if let kind = device.kind, device.isUp, !plainKinds.contains(kind) {
            found.append(SidePath(what: "device \(name) of kind \(kind)", remedy: "ip link del dev \(word)"))
        } else if device.isUp, device.isForTheTaking {
            // What its holder writes comes from outside for the rules, from whatever address: the answers to it leave.
            let what = "device \(name) of kind tun, which programs may take hold of"
            found.append(SidePath(what: what, remedy: "ip link del dev \(word)"))
        }
        return found
    }
}

extension Discipline {
    fileprivate func asSidePath(on device: Device) -> SidePath {
        let place = ["clsact", "ingress"].contains(kind) ? kind : "root"
        return SidePath(
            what: "queueing discipline \(kind) on \(device.name)",
            remedy: "tc qdisc del dev \(device.word) \(place)"
        )
    }
}

// MARK: - BPF

extension SideWays {
    private func programs(of device: Device) throws(NetlinkError) -> [SidePath] {
        var found: [SidePath] = []
        for (place, word) in [(CLINUX_BPF_TCX_INGRESS, "ingress"), (CLINUX_BPF_TCX_EGRESS, "egress")]
        where try hasProgram(device.index, place) {
            found.append(
                SidePath(
                    what: "a BPF program at tcx \(word) of \(device.name)",
                    // bpftool(8) knows devices by their names only.
                    remedy: SidePath.isPlain(device.name)
                        ? "bpftool net detach tcx_\(word) dev \(device.name)"
                        : "ip link set dev \(device.word) name \(device.plainName)"
                )
            )
        }
        guard device.kind == "netkit" else { return found }
        for place in [CLINUX_BPF_NETKIT_PRIMARY, CLINUX_BPF_NETKIT_PEER] where try hasProgram(device.index, place) {
            found.append(
                SidePath(what: "a BPF program of netkit \(device.name)", remedy: "ip link del dev \(device.word)")
            )
            break
        }
        return found
    }

    private func programsOfNamespace() throws(NetlinkError) -> [SidePath] {
        let namespace = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC)
        guard namespace >= 0 else { throw NetlinkError(operation: "open the network namespace", errno: errno) }
        defer { close(namespace) }
        var found: [SidePath] = []
        for (place, word) in [(CLINUX_BPF_SK_LOOKUP, "sk_lookup"), (CLINUX_BPF_FLOW_DISSECTOR, "flow_dissector")]
        where try hasProgram(UInt32(namespace), place) {
            found.append(
                SidePath(
                    what: "a BPF program at \(word) of the network",
                    remedy: "end who holds its link, or bpftool link detach"
                )
            )
        }
        return found
    }

    private func hasProgram(_ target: UInt32, _ place: clinux_bpf_place) throws(NetlinkError) -> Bool {
        let count = clinux_bpf_count(target, place)
        if count >= 0 { return count > 0 }
        switch errno {
        // The kernel knows no such place, or no BPF; the device has gone, or is the other end's to ask about.
        case EINVAL, ENOSYS, EOPNOTSUPP, ENODEV, ENOENT, ENXIO, EACCES: return false
        case EPERM where !needsPrograms: return false
        case let number: throw NetlinkError(operation: "ask for BPF programs", errno: number)
        }
    }
}

// MARK: - Asking

extension SideWays {
    private static func links(_ socket: NetlinkSocket) throws(NetlinkError) -> [Device] {
        let question = RouteQuestion.make(RTM_GETLINK, ifinfomsg())
        let headerSize = MemoryLayout<ifinfomsg>.size
        var devices: [Device] = []
        for message in try socket.dump(question, operation: "list devices", atMost: most) {
            guard message.header.nlmsg_type == UInt16(RTM_NEWLINK), message.payload.count >= headerSize else {
                continue
            }
            let info = message.payload.withUnsafeBytes { $0.loadUnaligned(as: ifinfomsg.self) }
            var device = Device(index: UInt32(bitPattern: info.ifi_index))
            device.isUp = info.ifi_flags & UInt32(IFF_UP) != 0
            var (lower, isElsewhere): (UInt32, Bool) = (0, false)
            for attribute in NetlinkAttributes(message.payload.dropFirst(headerSize)) {
                switch attribute.type {
                case Int(IFLA_IFNAME): device.name = attribute.text
                case Int(IFLA_MASTER): device.master = attribute.host32 ?? 0
                case Int(IFLA_LINK): lower = attribute.host32 ?? 0
                case Int(IFLA_LINK_NETNSID): isElsewhere = true
                case Int(IFLA_LINKINFO):
                    let parts = Array(NetlinkAttributes(attribute.payload))
                    device.kind = parts.first { $0.type == Int(IFLA_INFO_KIND) }?.text
                    guard device.kind == "tun", let data = parts.first(where: { $0.type == Int(IFLA_INFO_DATA) }) else {
                        continue
                    }
                    // One that stays without a program, or has queues for several.
                    device.isForTheTaking = NetlinkAttributes(data.payload).contains {
                        [Int(IFLA_TUN_PERSIST), Int(IFLA_TUN_MULTI_QUEUE)].contains($0.type) && $0.payload.first != 0
                    }
                case Int(IFLA_XDP):
                    device.hasXDP = NetlinkAttributes(attribute.payload).contains {
                        $0.type == Int(IFLA_XDP_ATTACHED) && $0.payload.first != 0
                    }
                default: continue
                }
            }
            if !isElsewhere { device.lower = lower }
            devices.append(device)
        }
        return devices
    }

    private static func disciplines(_ socket: NetlinkSocket) throws(NetlinkError) -> [Discipline] {
        // TCA_DUMP_INVISIBLE, a flag: those that devices get by themselves too.
        let invisible: [UInt8] = [4, 0, UInt8(TCA_DUMP_INVISIBLE), 0]
        let question = RouteQuestion.make(RTM_GETQDISC, tcmsg(), invisible)
        let headerSize = MemoryLayout<tcmsg>.size
        let answers: [NetlinkMessage]
        do {
            answers = try socket.dump(question, operation: "list queueing disciplines", atMost: most)
        } catch  where error.errno == EOPNOTSUPP {
            return []
        }
        return answers.compactMap { message in
            guard message.header.nlmsg_type == UInt16(RTM_NEWQDISC), message.payload.count >= headerSize else {
                return nil
            }
            let info = message.payload.withUnsafeBytes { $0.loadUnaligned(as: tcmsg.self) }
            let kind = NetlinkAttributes(message.payload.dropFirst(headerSize)).first { $0.type == Int(TCA_KIND) }?.text
            return Discipline(
                device: UInt32(bitPattern: info.tcm_ifindex),
                handle: info.tcm_handle,
                parent: info.tcm_parent,
                kind: kind ?? "?"
            )
        }
    }

    private static func hasFilters(_ discipline: Discipline, _ socket: NetlinkSocket) throws(NetlinkError) -> Bool {
        var info = tcmsg()
        info.tcm_ifindex = Int32(bitPattern: discipline.device)
        // TC_H_ROOT: asked for as the device's own.
        info.tcm_parent = discipline.parent == .max ? 0 : discipline.handle
        let question = RouteQuestion.make(RTM_GETTFILTER, info)
        return try socket.dump(question, operation: "list filters", atMost: most).contains {
            $0.header.nlmsg_type == UInt16(RTM_NEWTFILTER)
        }
    }
}
