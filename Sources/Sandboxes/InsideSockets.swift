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
    struct Family: Sendable {
        let family: IPAddress.Family
        let dnsUDP: CInt
        let dnsTCP: CInt
        let proxy: CInt
    }

    /// One netlink socket for each use: a table belongs to its socket, and answers must not get between records.
    private struct Netlinks {
        let table: NetlinkSocket
        let reports: NetlinkSocket

        static let count = 2

        init(open: () throws -> NetlinkSocket) throws {
            table = try open()
            reports = try open()
        }

        var descriptors: [CInt] { [table, reports].map(\.descriptor) }
    }

    /// What becomes of a table that the namespace has already.
    enum Inheritance: Sendable {
        /// There is none; one that is there is an error.
        case none
        /// It is taken over with its pins: an earlier process guarded this sandbox. It is an error when somebody changed
        /// what else there is in the meantime.
        case pins
        /// As with pins, and the door stays open: that process handed over its listeners, in which everything waits.
        case pinsAndDoor
        /// Its rules are taken over and its pins removed: nobody knows what they were for.
        case rules
    }

    let table: SandboxTable
    /// What is pinned in the table.
    let pins: [KernelPin]
    let refusalLog: RefusalLog
    let families: [Family]
    /// `nil` where nothing may be sent but over TCP: most policies open no UDP.
    let datagrams: DatagramSockets?

    private static let backlog = 4_096
    private static let refusalGroup: UInt16 = 64

    /// Opens them by a thread that enters the namespace for that.
    init(in namespace: NetworkNamespace, ports: ListenerPorts, refusals: RefusalLimit) throws {
        self = try namespace.enter { try Self.open(ports: ports, refusals: refusals) }
    }

    /// Opens them in the calling thread's namespace. In a network that is not of our making, `gateways` are others, `onLink`
    /// says what is on its links, and IPv6 may be left out where there is none. Without `opensUDP`, there are no sockets for
    /// datagrams. `handed` are listeners that another process opened there; they are closed when this throws, as all are.
    /// `upstream` is what sockets to the outside have, where they are in the same namespace, and `asksDocker` whether they
    /// may ask Docker's resolver in there; `fence` what judged packets get. `notes` are for a process after this one.
    static func open(
        ports: ListenerPorts,
        refusals: RefusalLimit = .init(),
        inheritance: Inheritance = .none,
        handed: [Family] = [],
        gateways: [IPAddress] = SandboxNetwork.Plan.gateways,
        onLink: [IPPrefix] = [],
        needsIPv6: Bool = true,
        opensUDP: Bool = true,
        upstream: UpstreamPass? = nil,
        asksDocker: Bool = false,
        fence: UpstreamPass? = nil,
        notes: [String] = []
    ) throws -> InsideSockets {
        let addresses = addresses(needsIPv6: needsIPv6)
        var handed = handed
        if !handed.isEmpty, !handed.elementsEqual(addresses, by: { $0.listens(at: $1, ports) }) {
            handed.flatMap(\.descriptors).forEach(Sockets.close)
            handed = []
        }
        // Until they are part of what is returned.
        var unclaimed = handed.flatMap(\.descriptors)
        defer { unclaimed.forEach(Sockets.close) }
        let netlinks = try Netlinks { try NetlinkSocket() }
        let table = SandboxTable(
            netlink: netlinks.table,
            ports: ports,
            nflogGroup: refusalGroup,
            refusalLimit: refusals,
            gateways: gateways,
            onLink: onLink,
            upstream: upstream,
            asksDocker: asksDocker,
            fence: fence,
            notes: notes
        )
        return try InsideSockets(table, netlinks, inheritance) {
            let families = handed.isEmpty ? try openFamilies(at: addresses, ports: ports) : handed
            unclaimed = []
            guard opensUDP else { return (families, nil) }
            do {
                return (families, try DatagramSockets.open(at: addresses, port: ports.datagrams))
            } catch {
                families.flatMap(\.descriptors).forEach(Sockets.close)
                throw error
            }
        }
    }

    /// Opens the sockets for datagrams in the calling thread's namespace, for a sandbox that has been opened without.
    static func openDatagrams(ports: ListenerPorts, needsIPv6: Bool) throws -> DatagramSockets {
        try DatagramSockets.open(at: addresses(needsIPv6: needsIPv6), port: ports.datagrams)
    }

    private static func addresses(needsIPv6: Bool) -> [IPAddress] {
        needsIPv6 || Sockets.canBind(loopbacks[1]) ? loopbacks : [loopbacks[0]]
    }

    private init(
        _ table: SandboxTable,
        _ netlinks: Netlinks,
        _ inheritance: Inheritance,
        open: () throws -> ([Family], DatagramSockets?)
    ) throws {
        self.table = table
        // Before the door is closed: who changes the rules from here on is noticed.
        refusalLog = try RefusalLog(socket: netlinks.reports, group: Self.refusalGroup, trusted: netlinks.table)
        pins = try Self.takeDoor(table, inheritance)
        do {
            (families, datagrams) = try open()
        } catch {
            if inheritance == .pinsAndDoor { try? table.pause() }
            throw error
        }
    }

    /// Removes the table of the calling thread's namespace, whoever left it there; none is no error. Nothing is enforced
    /// there any more.
    static func removeTable(ports: ListenerPorts) throws(NetlinkError) {
        let table = SandboxTable(netlink: try NetlinkSocket(), ports: ports, nflogGroup: refusalGroup)
        if try isAdopted(table) { try table.delete() }
    }

    /// Closes the door of a table that a process before this one, or an attempt, left in the calling thread's namespace.
    /// `false` when there is none. Throws EPERM when it is another process's.
    static func closeRemains(ports: ListenerPorts) throws(NetlinkError) -> Bool {
        try isAdopted(SandboxTable(netlink: try NetlinkSocket(), ports: ports, nflogGroup: refusalGroup))
    }

    /// Closes the door, or sees to it that it is as it should be. Returns the pins that are kept.
    private static func takeDoor(_ table: SandboxTable, _ inheritance: Inheritance) throws -> [KernelPin] {
        guard inheritance != .none else {
            try table.closeDoor()
            return []
        }
        guard try isAdopted(table, keepingDoorOpen: inheritance == .pinsAndDoor) else {
            try table.closeDoor()
            // No flow is one that we let in.
            try table.forgetFlows()
            return []
        }
        guard inheritance == .rules else { return try keptPins(of: table) }
        let pins = try table.pins()
        try table.recordOthers()
        try table.forgetFlows()
        try table.unpin(pins.map(\.address))
        return []
    }

    /// Closes the door when the rest of the rules is not what it was, or that cannot be found out.
    private static func keptPins(of table: SandboxTable) throws -> [KernelPin] {
        do {
            let pins = try table.pins()
            if let change = try table.changeOfOthers() { throw change }
            return pins
        } catch {
            try? table.pause()
            throw error
        }
    }

    /// Takes over the table that is there; `false` when there is none.
    private static func isAdopted(_ table: SandboxTable, keepingDoorOpen: Bool = false) throws(NetlinkError) -> Bool {
        // To find out by trying takes the kernel a hundred times as long: it waits before it forgets what it had prepared.
        guard try table.isThere() else { return false }
        do {
            try table.adopt(keepingDoorOpen: keepingDoorOpen)
            return true
        } catch  where error.errno == ENOENT {
            return false
        }
    }

    /// All listeners, opened in the calling thread's namespace, or none.
    private static func openFamilies(at addresses: [IPAddress], ports: ListenerPorts) throws(SystemError) -> [Family] {
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
                    proxy: kept(try Sockets.tcpListener(Endpoint(address, ports.proxy), backlog: backlog))
                )
            }
        } catch {
            opened.forEach(Sockets.close)
            throw error
        }
    }

    /// The listeners' descriptors, family by family.
    var listeners: [CInt] { families.flatMap(\.descriptors) }

    /// Closes all of them, and the door, when nobody serves them.
    func abandon() {
        try? table.pause()
        listeners.forEach(Sockets.close)
        datagrams?.close()
    }

    private static let loopbacks = [IPAddress(v4: 0x7f00_0001), IPAddress(v6: 1)]
}

// MARK: - From another process

extension InsideSockets {
    /// The sockets while one process opens them and another one gets them. Nobody is in the namespace yet.
    struct Parcel {
        private let netlinks: Netlinks
        private let families: [Family]
        private let datagrams: DatagramSockets

        /// How many descriptors there are.
        static let count = Netlinks.count + 1 + 5 * loopbacks.count

        /// Opens the sockets in the calling thread's namespace.
        init(ports: ListenerPorts) throws {
            netlinks = try Netlinks { try NetlinkSocket() }
            families = try openFamilies(at: loopbacks, ports: ports)
            datagrams = try DatagramSockets.open(at: loopbacks, port: ports.datagrams)
        }

        /// All of them, in the order in which they are unpacked. They stay this value's own.
        var descriptors: [CInt] {
            netlinks.descriptors + families.flatMap(\.descriptors)
                + datagrams.descriptors.flatMap { [$0.datagrams, $0.icmp] } + [datagrams.conntrack.descriptor]
        }
    }

    /// Takes over the descriptors of a ``Parcel`` that another process sent.
    init(unpacking descriptors: [CInt], ports: ListenerPorts, refusals: RefusalLimit) throws {
        precondition(descriptors.count == Parcel.count)
        var rest = descriptors[...]
        do {
            let netlinks = try Netlinks { try NetlinkSocket(adopting: rest.removeFirst()) }
            let table = SandboxTable(
                netlink: netlinks.table,
                ports: ports,
                nflogGroup: Self.refusalGroup,
                refusalLimit: refusals,
                gateways: SandboxNetwork.Plan.gateways
            )
            try self.init(table, netlinks, .none) {
                let families = Self.loopbacks.map { Family(unpacking: &rest, family: $0.family) }
                let relays = Self.loopbacks.map { _ in
                    DatagramListener.Descriptors(datagrams: rest.removeFirst(), icmp: rest.removeFirst())
                }
                let conntrack = Conntrack(socket: try NetlinkSocket(adopting: rest.removeFirst()))
                return (families, DatagramSockets(conntrack: conntrack, descriptors: relays))
            }
        } catch {
            rest.forEach(Sockets.close)
            throw error
        }
    }
}

extension InsideSockets.Family {
    /// How many descriptors a family has.
    static let count = 3

    /// In the order of the initialiser below.
    var descriptors: [CInt] { [dnsUDP, dnsTCP, proxy] }

    init(unpacking descriptors: inout ArraySlice<CInt>, family: IPAddress.Family) {
        self.family = family
        dnsUDP = descriptors.removeFirst()
        dnsTCP = descriptors.removeFirst()
        proxy = descriptors.removeFirst()
    }

    /// Whether the sockets are where a sandbox's listeners have to be.
    fileprivate func listens(at address: IPAddress, _ ports: ListenerPorts) -> Bool {
        family == address.family && Sockets.localEndpoint(dnsUDP) == Endpoint(address, ports.dns)
            && Sockets.localEndpoint(dnsTCP) == Endpoint(address, ports.dns)
            && Sockets.localEndpoint(proxy) == Endpoint(address, ports.proxy)
    }
}
