internal import CLinux
internal import CMnl
internal import Glibc
public import NetPrimitives

/// A network device of one namespace, configured through rtnetlink. Loop- or thread-confined: make it inside
/// ``NetworkNamespace/enter(_:)`` and leave it there.
public final class Link {
    /// The device's name.
    public let name: String
    /// The device's number in its namespace.
    public let index: CInt
    private let socket: RouteSocket

    /// The device called `name` in the calling thread's namespace.
    public init(named name: String) throws(NamespaceError) {
        let index = if_nametoindex(name)
        guard index > 0 else { throw NamespaceError("cannot find device \(name)", errno: errno) }
        self.name = name
        self.index = CInt(bitPattern: index)
        self.socket = try RouteSocket()
    }

    /// Brings the device up (IFF_UP). With `asking` false the device never uses ARP or neighbour discovery (IFF_NOARP):
    /// it neither asks nor answers, joins no solicited-node group and so sends no multicast listener report.
    public func setUp(asking: Bool = true) throws(NamespaceError) {
        var info = ifinfomsg()
        info.ifi_index = index
        info.ifi_flags = UInt32(asking ? IFF_UP : IFF_UP | IFF_NOARP)
        info.ifi_change = info.ifi_flags
        try socket.transact(RouteMessage("cannot bring up \(name)", type: RTM_NEWLINK, payload: info))
    }

    /// Keeps the kernel from making a link-local IPv6 address of its own when the device comes up, so the device sends
    /// neither duplicate address detection nor router solicitations.
    public func disableAutomaticLinkLocal() throws(NamespaceError) {
        var info = ifinfomsg()
        info.ifi_index = index
        let message = RouteMessage("cannot set the IPv6 address mode of \(name)", type: RTM_NEWLINK, payload: info)
        message.nest(IFLA_AF_SPEC) {
            message.nest(Int(AF_INET6)) {
                message.put(IFLA_INET6_ADDR_GEN_MODE, bytes: [UInt8(IN6_ADDR_GEN_MODE_NONE.rawValue)])
            }
        }
        try socket.transact(message)
    }

    /// Adds an address with a prefix of its own width, so that nothing becomes on-link by it. IPv6 addresses are usable
    /// when this returns: duplicate address detection is skipped (IFA_F_NODAD).
    public func add(address: IPAddress) throws(NamespaceError) {
        let message = RouteMessage(
            "cannot add address \(address) to \(name)",
            type: RTM_NEWADDR,
            flags: NLM_F_CREATE | NLM_F_EXCL,
            payload: addressInfo(address, prefixLength: UInt8(address.family.bitWidth))
        )
        message.put(IFA_LOCAL, bytes: address.networkBytes)
        message.put(IFA_ADDRESS, bytes: address.networkBytes)
        message.put(IFA_FLAGS, UInt32(IFA_F_NODAD | IFA_F_NOPREFIXROUTE))
        let changes = try RouteSocket(groups: UInt32(RTMGRP_IPV6_ROUTE))
        try socket.transact(message)
        try awaitLocalRoute(to: address, changes)
    }

    /// The kernel makes an IPv6 address its own in a work queue of its own time, after it has acknowledged it. Until
    /// then a packet from that address is not from here, and is dropped.
    private func awaitLocalRoute(to address: IPAddress, _ changes: RouteSocket) throws(NamespaceError) {
        var patience = 200
        while try !isLocal(address) {
            guard patience > 0 else {
                throw NamespaceError("cannot use address \(address) of \(name)", errno: ETIMEDOUT)
            }
            patience -= 1
            changes.awaitChange(milliseconds: 25)
        }
    }

    /// Whether a route says that `address` is of this namespace.
    private func isLocal(_ address: IPAddress) throws(NamespaceError) -> Bool {
        var info = rtmsg()
        info.rtm_family = address.family.number
        info.rtm_dst_len = UInt8(address.family.bitWidth)
        let message = RouteMessage("cannot look up the route to \(address)", type: RTM_GETROUTE, payload: info)
        message.put(Int(RTA_DST.rawValue), bytes: address.networkBytes)
        let answer: [UInt8]?
        do {
            answer = try socket.transact(message)
        } catch  where error.errno == ENETUNREACH || error.errno == EHOSTUNREACH {
            return false
        }
        guard let answer, answer.count >= MemoryLayout<rtmsg>.size else { return false }
        let route = answer.withUnsafeBytes { $0.loadUnaligned(as: rtmsg.self) }
        return route.rtm_type == UInt8(RTN_LOCAL)
    }

    /// Adds a neighbour entry that never expires and is never asked for (NUD_PERMANENT), in place of ARP or neighbour
    /// discovery.
    public func add(neighbour: IPAddress, at hardware: HardwareAddress) throws(NamespaceError) {
        var info = ndmsg()
        info.ndm_family = neighbour.family.number
        info.ndm_ifindex = index
        info.ndm_state = UInt16(NUD_PERMANENT)
        let message = RouteMessage(
            "cannot add neighbour \(neighbour) to \(name)",
            type: RTM_NEWNEIGH,
            flags: NLM_F_CREATE | NLM_F_REPLACE,
            payload: info
        )
        message.put(NDA_DST, bytes: neighbour.networkBytes)
        message.put(NDA_LLADDR, bytes: hardware.bytes)
        try socket.transact(message)
    }

    /// Adds the default route of the gateway's family. The gateway need not be on-link (RTNH_F_ONLINK).
    public func addDefaultRoute(via gateway: IPAddress) throws(NamespaceError) {
        let what = "cannot add a default route through \(gateway)"
        var info = defaultRoute(of: gateway.family)
        info.rtm_flags = UInt32(RTNH_F_ONLINK)
        let message = RouteMessage(what, type: RTM_NEWROUTE, flags: NLM_F_CREATE | NLM_F_EXCL, payload: info)
        try put(message, via: gateway)
    }

    private func defaultRoute(of family: IPAddress.Family) -> rtmsg {
        var info = rtmsg()
        info.rtm_family = family.number
        info.rtm_table = UInt8(RT_TABLE_MAIN.rawValue)
        info.rtm_protocol = UInt8(RTPROT_STATIC)
        info.rtm_scope = UInt8(RT_SCOPE_UNIVERSE.rawValue)
        info.rtm_type = UInt8(RTN_UNICAST)
        return info
    }

    /// Completes a message about a route through this device, and sends it.
    private func put(_ message: RouteMessage, via gateway: IPAddress) throws(NamespaceError) {
        message.put(Int(RTA_GATEWAY.rawValue), bytes: gateway.networkBytes)
        message.put(Int(RTA_OIF.rawValue), UInt32(index))
        try socket.transact(message)
    }

    private func addressInfo(_ address: IPAddress, prefixLength: UInt8) -> ifaddrmsg {
        var info = ifaddrmsg()
        info.ifa_family = address.family.number
        info.ifa_prefixlen = prefixLength
        info.ifa_scope = UInt8(RT_SCOPE_UNIVERSE.rawValue)
        info.ifa_index = UInt32(index)
        return info
    }
}

extension Link {
    /// Has an address that the device has stay for good.
    func keep(address: IPAddress, prefixLength: UInt8) throws(NamespaceError) {
        // Without IFA_CACHEINFO its lifetimes are without end.
        let message = RouteMessage(
            "cannot keep address \(address) of \(name)",
            type: RTM_NEWADDR,
            flags: NLM_F_REPLACE,
            payload: addressInfo(address, prefixLength: prefixLength)
        )
        message.put(IFA_LOCAL, bytes: address.networkBytes)
        message.put(IFA_ADDRESS, bytes: address.networkBytes)
        try socket.transact(message)
    }

    /// Puts a default route that stays in place of that of the same metric.
    func keepDefaultRoute(via gateway: IPAddress, metric: UInt32) throws(NamespaceError) {
        let message = RouteMessage(
            "cannot keep the default route through \(gateway)",
            type: RTM_NEWROUTE,
            flags: NLM_F_CREATE | NLM_F_REPLACE,
            payload: defaultRoute(of: gateway.family)
        )
        message.put(Int(RTA_PRIORITY.rawValue), metric)
        try put(message, via: gateway)
    }
}

/// One end of a veth pair to be made.
public struct VethEnd: Sendable {
    /// The device's name in its namespace, at most 15 bytes.
    public let name: String
    /// The device's Ethernet address.
    public let hardware: HardwareAddress
    /// The namespace that the device appears in.
    public let namespace: NetworkNamespace

    /// An end from its parts.
    public init(name: String, hardware: HardwareAddress, namespace: NetworkNamespace) {
        self.name = name
        self.hardware = hardware
        self.namespace = namespace
    }
}

extension Link {
    /// Makes a veth pair, each end at once in its own namespace (IFLA_NET_NS_FD): neither shows up anywhere else, not
    /// even for a moment. Both ends are down.
    ///
    ///     ip link add NAME address MAC netns A type veth peer name NAME address MAC netns B
    public static func makeVethPair(_ near: VethEnd, _ far: VethEnd) throws(NamespaceError) {
        let socket = try RouteSocket()
        let message = RouteMessage(
            "cannot create veth pair \(near.name), \(far.name)",
            type: RTM_NEWLINK,
            flags: NLM_F_CREATE | NLM_F_EXCL,
            payload: ifinfomsg()
        )
        message.put(end: near)
        message.nest(IFLA_LINKINFO) {
            message.put(IFLA_INFO_KIND, text: "veth")
            message.nest(IFLA_INFO_DATA) {
                message.nest(VETH_INFO_PEER, payload: ifinfomsg()) { message.put(end: far) }
            }
        }
        try socket.transact(message)
    }
}

extension RouteMessage {
    fileprivate func put(end: VethEnd) {
        put(IFLA_IFNAME, text: end.name)
        put(IFLA_ADDRESS, bytes: end.hardware.bytes)
        put(IFLA_NET_NS_FD, UInt32(end.namespace.descriptor))
    }
}

extension IPAddress.Family {
    fileprivate var number: UInt8 { UInt8(self == .v4 ? AF_INET : AF_INET6) }
}
