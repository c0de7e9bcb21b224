/// What tells the enforcer's own sockets from everybody else's where both are in one network namespace: the mark and the
/// priority of the socket (SO_MARK and SO_PRIORITY, socket(7)), both random. The mark is the secret: the kernel tells it to
/// CAP_NET_ADMIN alone, and the priority to everybody in the network (sock_diag(7)). Its 32 bits could be tried through within
/// hours by a program with CAP_NET_RAW, so the priority is what such tries are known by, and one in ten seconds is all that
/// counts (`Nftables/SandboxRuleset`).
public struct UpstreamPass: Hashable, Sendable {
    /// The mark; not 0.
    public let mark: UInt32
    /// The priority; above 6, which needs CAP_NET_ADMIN or CAP_NET_RAW.
    public let priority: UInt32

    /// A pass from its parts.
    public init(mark: UInt32, priority: UInt32) {
        self.mark = mark
        self.priority = priority
    }

    /// A new pass.
    public static func random() -> UpstreamPass {
        UpstreamPass(mark: .random(in: 1 ... .max), priority: .random(in: 1 << 16...UInt32(Int32.max)))
    }
}
