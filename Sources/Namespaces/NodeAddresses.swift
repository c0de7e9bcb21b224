internal import CLinux
internal import Glibc
public import NetPrimitives

/// The addresses of the devices in the calling thread's network namespace, sorted, each once; loopback included. In the
/// node's namespace these are the addresses that a sandbox must not reach by a name that resolves to them.
public func nodeAddresses() throws(NamespaceError) -> [IPAddress] {
    var addresses: Set<IPAddress> = []
    try forEachAddress { entry in
        if let address = entry.ifa_addr.flatMap({ IPAddress(socketAddress: $0) }) { addresses.insert(address) }
    }
    return addresses.sorted()
}

/// The IPv6 prefixes of the links of the calling thread's network namespace, as its addresses say, sorted, each once;
/// without fe80::/10, which every link has. At most 32: nobody has more.
public func onLinkPrefixes() throws(NamespaceError) -> [IPPrefix] {
    var prefixes: Set<IPPrefix> = []
    try forEachAddress { entry in
        guard entry.ifa_flags & UInt32(IFF_LOOPBACK) == 0,
            let address = entry.ifa_addr.flatMap({ IPAddress(socketAddress: $0) }), address.family == .v6,
            let mask = entry.ifa_netmask.flatMap({ IPAddress(socketAddress: $0) })
        else { return }
        let length = mask.value.nonzeroBitCount
        // An address by itself has no neighbours, and a link to everywhere is none.
        guard (1..<128).contains(length), !IPPrefix.linkLocal6.contains(address) else { return }
        prefixes.insert(IPPrefix(address, length: length))
    }
    return Array(prefixes.sorted { ($0.address, $0.length) < ($1.address, $1.length) }.prefix(32))
}

private func forEachAddress(_ body: (ifaddrs) -> Void) throws(NamespaceError) {
    var list: UnsafeMutablePointer<ifaddrs>?
    guard getifaddrs(&list) == 0 else { throw NamespaceError("cannot list the node's addresses", errno: errno) }
    defer { freeifaddrs(list) }
    var next = list
    while let entry = next {
        next = entry.pointee.ifa_next
        body(entry.pointee)
    }
}

/// Tells that the addresses of a network namespace have changed (RTM_NEWADDR, RTM_DELADDR).
public final class NodeAddressChanges {
    private let socket: RouteSocket

    /// Listens in the calling thread's namespace.
    public init() throws(NamespaceError) {
        socket = try RouteSocket(groups: UInt32(RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR))
    }

    /// Readable when addresses have changed; owned by this object.
    public var descriptor: CInt { socket.descriptor }

    /// Forgets the changes so far. To be called before ``nodeAddresses()``, so that none is missed.
    public func take() { socket.takeChanges() }
}

extension IPAddress {
    /// The address in a `sockaddr_in` or `sockaddr_in6`; `nil` for other families.
    fileprivate init?(socketAddress: UnsafePointer<sockaddr>) {
        let raw = UnsafeRawPointer(socketAddress)
        switch CInt(socketAddress.pointee.sa_family) {
        case AF_INET:
            let address = raw.loadUnaligned(as: sockaddr_in.self)
            self = withUnsafeBytes(of: address.sin_addr) { IPAddress(networkBytes: $0)! }
        case AF_INET6:
            let address = raw.loadUnaligned(as: sockaddr_in6.self)
            self = withUnsafeBytes(of: address.sin6_addr) { IPAddress(networkBytes: $0)! }
        default:
            return nil
        }
    }
}
