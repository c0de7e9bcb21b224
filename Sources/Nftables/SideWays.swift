import CLinux
import CNftnl
import Glibc

/// What in a namespace is for what: it decides what else there may be beside our rules.
public struct SideWays: Sendable {
    /// Whether our own sockets to the outside are opened in there: what turns their packets to another server keeps them
    /// from every server then, and what looks at them can learn what they are told from others' by.
    public var hasUpstreamInside: Bool
    /// Whether the kernel must say what BPF programs are attached. Containers' system call filters often refuse bpf(2) to
    /// who lacks CAP_BPF and CAP_SYS_ADMIN.
    public var needsPrograms: Bool
    /// Whether an ``EgressFence`` is put up there, which takes over one that there is.
    public var hasFence: Bool

    /// What to look for.
    public init(hasUpstreamInside: Bool, needsPrograms: Bool, hasFence: Bool) {
        self.hasUpstreamInside = hasUpstreamInside
        self.needsPrograms = needsPrograms
        self.hasFence = hasFence
    }
}

/// What takes packets past the rules, as one who was root there can have left it behind:
///
///     socket ─▶ raw, nat, out ─▶ route ─▶ post ─▶ fence ─▶ tcx, clsact ─▶ discipline ─▶ device ─▶ XDP at the other end
///               │                │                         │              │             │
///               others' rules    encapsulation, IPsec      redirects      filters       ports, tunnels
///
/// Most of it takes packets that our rules let go because they stay inside, to a local address, and sends them elsewhere.
/// Nobody can make any of it without CAP_NET_ADMIN, so that once is often enough to look where nobody has it.
extension SideWays {
    /// More of one kind than this is not looked through, and an error.
    static let most = 100_000

    /// What there is in the calling thread's namespace; what is harmless or usual is left out.
    /// - Throws: when the kernel does not say.
    public func find() throws(NetlinkError) -> [SidePath] {
        try devices() + routes() + rules() + legacyRules()
    }
}

/// A message that asks the kernel for everything of a kind (NLM_F_DUMP) on a socket of another bus than NETLINK_NETFILTER.
enum RouteQuestion {
    /// `type` is RTM_GET… or the like, `header` the structure that its messages begin with, `attributes` what follows.
    static func make<Header>(_ type: Int, _ header: Header, _ attributes: [UInt8] = []) -> [UInt8] {
        let body = withUnsafeBytes(of: header) { Array($0) }
        let padding = [UInt8](repeating: 0, count: (4 - body.count % 4) % 4)
        var message = nlmsghdr()
        message.nlmsg_type = UInt16(type)
        message.nlmsg_flags = UInt16(NLM_F_REQUEST | NLM_F_DUMP)
        message.nlmsg_len = UInt32(MemoryLayout<nlmsghdr>.size + body.count + padding.count + attributes.count)
        return withUnsafeBytes(of: message) { Array($0) } + body + padding + attributes
    }
}

extension NetlinkAttribute {
    /// The payload as a 32-bit number in the machine's order; `nil` when it is not 4 bytes long.
    var host32: UInt32? {
        payload.count == 4 ? payload.withUnsafeBytes { $0.loadUnaligned(as: UInt32.self) } : nil
    }

    /// The same of 16 bits.
    var host16: UInt16? {
        payload.count == 2 ? payload.withUnsafeBytes { $0.loadUnaligned(as: UInt16.self) } : nil
    }
}
