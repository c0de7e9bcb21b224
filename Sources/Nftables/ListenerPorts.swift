/// Where our listeners are in a sandbox's namespace: on 127.0.0.1 and on ::1 alike. Different from each other, and
/// outside of the range that the kernel takes ephemeral ports from.
public struct ListenerPorts: Hashable, Sendable {
    /// The resolver, UDP and TCP.
    public let dns: UInt16
    /// The proxy that redirected TCP connections reach.
    public let proxy: UInt16
    /// The proxy that programs are told of (`HTTPS_PROXY`) and connect to by themselves.
    public let explicitProxy: UInt16
    /// The relay that redirected datagrams reach.
    public let datagrams: UInt16

    /// Ports from their numbers.
    public init(dns: UInt16, proxy: UInt16, explicitProxy: UInt16, datagrams: UInt16) {
        precondition(Set([dns, proxy, explicitProxy, datagrams]).count == 4, "listeners need different ports")
        self.dns = dns
        self.proxy = proxy
        self.explicitProxy = explicitProxy
        self.datagrams = datagrams
    }
}
