/// Where our listeners are in a sandbox's namespace: on 127.0.0.1 and on ::1 alike. Different from each other, and
/// outside of the range that the kernel takes ephemeral ports from.
public struct ListenerPorts: Hashable, Sendable {
    /// The resolver, UDP and TCP.
    public let dns: UInt16
    /// The proxy that redirected TCP connections reach, and that programs which are told of it (`HTTPS_PROXY`) connect to.
    public let proxy: UInt16
    /// The relay that redirected datagrams reach.
    public let datagrams: UInt16

    /// Ports from their numbers.
    public init(dns: UInt16, proxy: UInt16, datagrams: UInt16) {
        precondition(Set([dns, proxy, datagrams]).count == 3, "listeners need different ports")
        self.dns = dns
        self.proxy = proxy
        self.datagrams = datagrams
    }
}
