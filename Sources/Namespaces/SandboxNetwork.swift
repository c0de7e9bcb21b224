internal import Glibc
public import NetPrimitives

/// The network of one sandbox: a namespace whose only device besides loopback is one end of a veth pair that leads
/// nowhere.
///
///     sandbox namespace                           dead end (a namespace of its own)
///     lo    127.0.0.1, ::1
///     eth0  192.0.0.2/32, fd73:616e:6467::2/128 ─── node0  up, no address, no route, no forwarding, no IPv6
///           default via 192.0.0.1, fd73:616e:6467::1
///
/// The device is there so that routes exist: a program's packet must find a route before the nat output hook can
/// redirect it. What is not redirected or refused reaches the dead end and is lost there, whatever its protocol, packet
/// sockets included. Neither namespace has a name and nothing in the node's namespace is touched: both are gone, veth
/// and all, with the last process and descriptor, also after SIGKILL. Nothing is left to clean up.
///
/// **Addresses.** The sandbox's two addresses are the only thing a policy could never reach, so they must lie where no
/// policy points: 192.0.0.0/29 is set aside for a host's own translation (RFC 7335) and is never used between hosts;
/// fd73:616e:6467::/48 is a unique local prefix (RFC 4193). Their prefixes are 32 and 128 bits, so no range is on-link
/// and all else takes the default route. glibc and RFC 6724 sort a global IPv4 destination before a global IPv6 one
/// from such a pair of addresses, which suits nodes without IPv6.
public final class SandboxNetwork: Sendable {
    /// The addresses and names that every sandbox has; they are the same in all of them, for they never meet.
    public enum Plan {
        /// The sandbox's IPv4 address.
        public static let address4 = IPAddress(v4: 0xc000_0002)
        /// The IPv4 gateway, which nobody is.
        public static let gateway4 = IPAddress(v4: 0xc000_0001)
        /// The sandbox's IPv6 address, fd73:616e:6467::2.
        public static let address6 = IPAddress(v6: 0xfd73_616e_6467_0000_0000_0000_0000_0002)
        /// The IPv6 gateway, fd73:616e:6467::1, which nobody is.
        public static let gateway6 = IPAddress(v6: 0xfd73_616e_6467_0000_0000_0000_0000_0001)
        /// Both gateways.
        public static let gateways = [gateway4, gateway6]
        /// The device in the sandbox.
        public static let device = "eth0"
        /// The device in the dead end.
        public static let deadEndDevice = "node0"
        static let hardware = HardwareAddress(locallyAdministered: (0x53, 0x47, 0, 0, 2))
        static let deadEndHardware = HardwareAddress(locallyAdministered: (0x53, 0x47, 0, 0, 1))
    }

    /// The namespace that the command runs in.
    public let namespace: NetworkNamespace
    /// The namespace that holds the other end of the veth pair, and nothing else.
    public let deadEnd: NetworkNamespace
    /// Whether the kernel speaks IPv6; without it the sandbox has no IPv6 address and nothing to fence.
    public let hasIPv6: Bool

    private init(namespace: NetworkNamespace, deadEnd: NetworkNamespace, hasIPv6: Bool) {
        self.namespace = namespace
        self.deadEnd = deadEnd
        self.hasIPv6 = hasIPv6
    }

    /// Makes both namespaces and the pair between them, configured and up. Needs CAP_SYS_ADMIN and CAP_NET_ADMIN.
    public static func make() throws(NamespaceError) -> SandboxNetwork {
        try make(endingIn: try makeDeadEnd(), deadEndDevice: Plan.deadEndDevice)
    }

    /// Makes a namespace for the far ends of any number of networks. They do not meet there: it has no address and
    /// forwards nothing.
    public static func makeDeadEnd() throws(NamespaceError) -> NetworkNamespace {
        let deadEnd = try NetworkNamespace.anonymous()
        try typed { try deadEnd.enter { try silence() } }
        return deadEnd
    }

    /// ``make()`` with a dead end of ``makeDeadEnd()``, where the far device is called `deadEndDevice` (at most 15 bytes).
    public static func make(
        endingIn deadEnd: NetworkNamespace,
        deadEndDevice: String
    ) throws(NamespaceError) -> SandboxNetwork {
        let namespace = try NetworkNamespace.anonymous()
        let far = VethEnd(name: deadEndDevice, hardware: Plan.deadEndHardware, namespace: deadEnd)
        let hasIPv6 = try typed {
            let hasIPv6 = try namespace.enter { try prepare(namespace: namespace, far: far) }
            // The dead end comes up first: a device without carrier would lose the IPv6 routes it was given.
            try deadEnd.enter { try Link(named: deadEndDevice).setUp(asking: false) }
            try namespace.enter { try bringUp(hasIPv6: hasIPv6) }
            return hasIPv6
        }
        return SandboxNetwork(namespace: namespace, deadEnd: deadEnd, hasIPv6: hasIPv6)
    }

    /// Makes the dead end deaf before its device exists. A new namespace may start with the node's IPv4 settings
    /// (net.core.devconf_inherit_init_net), so forwarding is turned off and not taken to be off.
    private static func silence() throws(NamespaceError) {
        try NetworkSetting(path: "ipv4/ip_forward", value: "0").apply()
        try NetworkSetting(path: "ipv4/conf/all/proxy_arp", value: "0").apply()
        try NetworkSetting(path: "ipv4/conf/default/proxy_arp", value: "0").apply()
        try NetworkSetting(path: "ipv4/conf/default/arp_ignore", value: "8").apply()
        try NetworkSetting(path: "ipv6/conf/all/disable_ipv6", value: "1").apply()
        try NetworkSetting(path: "ipv6/conf/default/disable_ipv6", value: "1").apply()
    }

    /// Runs in the sandbox's namespace before the device comes up.
    private static func prepare(namespace: NetworkNamespace, far: VethEnd) throws(NamespaceError) -> Bool {
        try NetworkSetting(path: "ipv4/ip_forward", value: "0").apply()
        let hasIPv6 = try NetworkSetting(path: "ipv6/conf/all/disable_ipv6", value: "0").apply()
        for scope in ["all", "default"] {
            for name in ["accept_ra", "autoconf", "accept_redirects", "router_solicitations", "forwarding"] {
                try NetworkSetting(path: "ipv6/conf/\(scope)/\(name)", value: "0").apply()
            }
            try NetworkSetting(path: "ipv4/conf/\(scope)/accept_redirects", value: "0").apply()
        }
        try Link.makeVethPair(
            VethEnd(name: Plan.device, hardware: Plan.hardware, namespace: namespace),
            far
        )
        if hasIPv6 { try Link(named: Plan.device).disableAutomaticLinkLocal() }
        return hasIPv6
    }

    private static func bringUp(hasIPv6: Bool) throws(NamespaceError) {
        try Link(named: "lo").setUp()
        let link = try Link(named: Plan.device)
        try link.setUp(asking: false)
        try link.add(address: Plan.address4)
        try link.add(neighbour: Plan.gateway4, at: Plan.deadEndHardware)
        try link.addDefaultRoute(via: Plan.gateway4)
        guard hasIPv6 else { return }
        try link.add(address: Plan.address6)
        try link.add(neighbour: Plan.gateway6, at: Plan.deadEndHardware)
        try link.addDefaultRoute(via: Plan.gateway6)
    }
}
