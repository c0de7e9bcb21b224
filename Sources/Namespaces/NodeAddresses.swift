internal import CLinux
internal import Glibc
public import NetPrimitives

/// The addresses of the devices in the calling thread's network namespace, sorted, each once; loopback included. In the
/// node's namespace these are the addresses that a sandbox must not reach by a name that resolves to them.
public func nodeAddresses() throws(NamespaceError) -> [IPAddress] {
    var list: UnsafeMutablePointer<ifaddrs>?
    guard getifaddrs(&list) == 0 else { throw NamespaceError("cannot list the node's addresses", errno: errno) }
    defer { freeifaddrs(list) }
    var addresses: Set<IPAddress> = []
    var next = list
    while let entry = next {
        next = entry.pointee.ifa_next
        guard let address = entry.pointee.ifa_addr.flatMap({ IPAddress(socketAddress: $0) }) else { continue }
        addresses.insert(address)
    }
    return addresses.sorted()
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
