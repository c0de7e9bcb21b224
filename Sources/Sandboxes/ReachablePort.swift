import Nftables

/// A port that programs in a sandbox can reach: there is no other that this program opens there.
public struct ReachablePort: Hashable, Sendable {
    /// Who answers.
    public let name: String
    /// On 127.0.0.1 and ::1 inside.
    public let port: UInt16
    /// Over what: `udp`, `tcp`.
    public let transports: [String]

    /// The resolver's, the proxy's and the relay's.
    public static let all = [
        ReachablePort(name: "resolver", port: Sandbox.ports.dns, transports: ["udp", "tcp"]),
        ReachablePort(name: "proxy", port: Sandbox.ports.proxy, transports: ["tcp"]),
        // Where a policy opens UDP.
        ReachablePort(name: "relay", port: Sandbox.ports.datagrams, transports: ["udp"]),
    ]
}
