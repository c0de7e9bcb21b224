/// Something in a network namespace that can take packets past the rules on its inet hooks.
public struct SidePath: Hashable, Sendable {
    /// What it is, and of what: `queueing discipline clsact on eth0`. Names in it are the choice of whoever made it.
    public let what: String
    /// What takes it away, as one would type it: `tc qdisc del dev eth0 clsact`.
    public let remedy: String
}

extension SidePath: CustomStringConvertible {
    /// `queueing discipline clsact on eth0 (tc qdisc del dev eth0 clsact)`.
    public var description: String { "\(what) (\(remedy))" }
}

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
