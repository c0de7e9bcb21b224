import Datapath
import Glibc
import Namespaces
import NetPrimitives
import Nftables
import Reactor

/// What is opened inside a sandbox's namespace: sockets stay in the namespace they were made in, the process does not.
/// The door is closed first; a throw leaves it closed and every socket shut.
struct InsideSockets {
    /// The listeners of one address family. IPv4 and IPv6 have sockets of their own: on a dual-stack one, UDP replies
    /// leave from the wrong address.
    struct Family {
        let family: IPAddress.Family
        let dnsUDP: CInt
        let dnsTCP: CInt
        let proxy: CInt
        let explicitProxy: CInt
        let datagrams: DatagramListener.Descriptors
    }

    /// One netlink socket for each use: a table belongs to its socket, and answers must not get between records.
    private struct Netlinks {
        let table: NetlinkSocket
        let refusals: NetlinkSocket
        let conntrack: NetlinkSocket

        static let count = 3

        init(open: () throws -> NetlinkSocket) throws {
            table = try open()
            refusals = try open()
            conntrack = try open()
        }

        var descriptors: [CInt] { [table, refusals, conntrack].map(\.descriptor) }
    }

    /// What becomes of a table that the namespace has already.
    enum Inheritance: Sendable {
        /// There is none; one that is there is an error.
        case none
        /// It is taken over with its pins: an earlier process guarded this sandbox.
        case pins
        /// Its rules are taken over and its pins removed: nobody knows what they were for.
        case rules
    }

    let table: SandboxTable
    /// What is pinned in the table.
    let pins: [KernelPin]
    let refusalLog: RefusalLog
    let conntrack: Conntrack
    let families: [Family]

    private static let backlog = 4_096
    private static let refusalGroup: UInt16 = 64

    /// Opens them by a thread that enters the namespace for that.
    init(in namespace: NetworkNamespace, ports: ListenerPorts) throws {
        self = try namespace.enter { try Self.open(ports: ports) }
    }

    /// Opens them in the calling thread's namespace. With `gateways` other than those of a network that we made; IPv6
    /// is left out where the namespace has none.
    static func open(
        ports: ListenerPorts,
        inheritance: Inheritance = .none,
        gateways: [IPAddress] = SandboxNetwork.Plan.gateways,
        needsIPv6: Bool = true
    ) throws -> InsideSockets {
        let netlinks = try Netlinks { try NetlinkSocket() }
        return try InsideSockets(ports, netlinks, inheritance: inheritance, gateways: gateways) {
            try openFamilies(ports: ports, needsIPv6: needsIPv6)
        }
    }

    private init(
        _ ports: ListenerPorts,
        _ netlinks: Netlinks,
        inheritance: Inheritance = .none,
        gateways: [IPAddress] = SandboxNetwork.Plan.gateways,
        openFamilies: () throws -> [Family]
    ) throws {
        table = SandboxTable(
            netlink: netlinks.table,
            ports: ports,
            nflogGroup: Self.refusalGroup,
            gateways: gateways
        )
        pins = try Self.closeDoor(table, inheritance)
        refusalLog = try RefusalLog(socket: netlinks.refusals, group: Self.refusalGroup)
        conntrack = Conntrack(socket: netlinks.conntrack)
        families = try openFamilies()
    }

    /// Removes the table of the calling thread's namespace, whoever left it there; none is no error. Nothing is enforced
    /// there any more.
    static func removeTable(ports: ListenerPorts) throws(NetlinkError) {
        let table = SandboxTable(netlink: try NetlinkSocket(), ports: ports, nflogGroup: refusalGroup)
        do {
            try table.adopt()
        } catch  where error.errno == ENOENT {
            return
        }
        try table.delete()
    }

    /// Returns the pins that are kept.
    private static func closeDoor(_ table: SandboxTable, _ inheritance: Inheritance) throws(NetlinkError) -> [KernelPin]
    {
        guard inheritance != .none else {
            try table.closeDoor()
            return []
        }
        do {
            try table.adopt()
        } catch  where error.errno == ENOENT {
            try table.closeDoor()
            return []
        }
        let pins = try table.pins()
        if inheritance == .pins { return pins }
        try table.unpin(pins.map(\.address))
        return []
    }

    /// All listeners, opened in the calling thread's namespace, or none.
    private static func openFamilies(ports: ListenerPorts, needsIPv6: Bool = true) throws(SystemError) -> [Family] {
        let addresses = needsIPv6 || Sockets.canBind(addresses[1]) ? addresses : [addresses[0]]
        var opened: [CInt] = []
        func kept(_ descriptor: CInt) -> CInt {
            opened.append(descriptor)
            return descriptor
        }
        do {
            return try addresses.map { address throws(SystemError) in
                Family(
                    family: address.family,
                    dnsUDP: kept(try Sockets.udpSocket(Endpoint(address, ports.dns))),
                    dnsTCP: kept(try Sockets.tcpListener(Endpoint(address, ports.dns), backlog: backlog)),
                    proxy: kept(try Sockets.tcpListener(Endpoint(address, ports.proxy), backlog: backlog)),
                    explicitProxy: kept(
                        try Sockets.tcpListener(Endpoint(address, ports.explicitProxy), backlog: backlog)
                    ),
                    datagrams: DatagramListener.Descriptors(
                        datagrams: kept(try Sockets.udpSocket(Endpoint(address, ports.datagrams))),
                        icmp: kept(try Sockets.icmpSocket(from: address))
                    )
                )
            }
        } catch {
            opened.forEach(Sockets.close)
            throw error
        }
    }

    /// The listeners' descriptors, family by family.
    var listeners: [CInt] { families.flatMap(\.descriptors) }

    /// Closes them, when nobody serves them.
    func closeListeners() {
        listeners.forEach(Sockets.close)
    }

    private static let addresses = [IPAddress(v4: 0x7f00_0001), IPAddress(v6: 1)]
}

// MARK: - From another process

extension InsideSockets {
    /// The sockets while one process opens them and another one gets them. Nobody is in the namespace yet.
    struct Parcel {
        private let netlinks: Netlinks
        private let families: [Family]

        /// How many descriptors there are.
        static let count = Netlinks.count + 6 * addresses.count

        /// Opens the sockets in the calling thread's namespace.
        init(ports: ListenerPorts) throws {
            netlinks = try Netlinks { try NetlinkSocket() }
            families = try openFamilies(ports: ports)
        }

        /// All of them, in the order in which they are unpacked. They stay this value's own.
        var descriptors: [CInt] {
            netlinks.descriptors + families.flatMap(\.descriptors)
        }
    }

    /// Takes over the descriptors of a ``Parcel`` that another process sent.
    init(unpacking descriptors: [CInt], ports: ListenerPorts) throws {
        precondition(descriptors.count == Parcel.count)
        var rest = descriptors[...]
        do {
            try self.init(ports, try Netlinks { try NetlinkSocket(adopting: rest.removeFirst()) }) {
                Self.addresses.map { Family(unpacking: &rest, family: $0.family) }
            }
        } catch {
            rest.forEach(Sockets.close)
            throw error
        }
    }
}

extension InsideSockets.Family {
    /// In the order of the initialiser below.
    fileprivate var descriptors: [CInt] {
        [dnsUDP, dnsTCP, proxy, explicitProxy, datagrams.datagrams, datagrams.icmp]
    }

    fileprivate init(unpacking descriptors: inout ArraySlice<CInt>, family: IPAddress.Family) {
        self.family = family
        dnsUDP = descriptors.removeFirst()
        dnsTCP = descriptors.removeFirst()
        proxy = descriptors.removeFirst()
        explicitProxy = descriptors.removeFirst()
        datagrams = DatagramListener.Descriptors(
            datagrams: descriptors.removeFirst(),
            icmp: descriptors.removeFirst()
        )
    }
}
