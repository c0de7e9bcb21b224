/// What a process of ours holds once it has set everything up, thread by thread, and why. Nothing else is kept.
public struct PrivilegeTable: Hashable, Sendable {
    /// What the process is.
    public enum Mode: String, CaseIterable, Sendable {
        /// `sandgate run` with privilege: it supervises the command and carries its traffic.
        case run
        /// `sandgate run` without.
        case rootless
        /// `sandgate serve`.
        case serve
        /// `sandgate sidecar`.
        case sidecar
    }

    /// What a thread does.
    public enum Role: String, CaseIterable, Sendable {
        /// It carries sandboxes' traffic: bytes that hostile programs chose.
        case loop
        /// It enters, makes and looks at namespaces, or starts threads that do.
        case keeper
        /// Everything else: the API, the audit, what waits.
        case other
    }

    /// A capability that is kept, if it was given.
    public struct Grant: Hashable, Sendable {
        /// The capability.
        public let capability: CapabilitySet
        /// What for.
        public let reason: String
        /// Whether the work is not done without; else it is kept where the process was given it and needs it.
        public let isRequired: Bool

        init(_ capability: CapabilitySet, _ reason: String, isRequired: Bool = true) {
            self.capability = capability
            self.reason = reason
            self.isRequired = isRequired
        }
    }

    /// Of what the table is.
    public let mode: Mode

    /// The table of a mode.
    public init(_ mode: Mode) {
        self.mode = mode
    }

    /// The roles that its threads have.
    public var roles: [Role] {
        switch mode {
        // One thread supervises and carries; the other writes to standard error.
        case .run, .rootless: [.loop, .other]
        case .serve: [.loop, .keeper, .other]
        // Its keeper ends when the network is under enforcement.
        case .sidecar: [.loop, .other]
        }
    }

    /// What threads of a role keep.
    public func grants(_ role: Role) -> [Grant] {
        switch (mode, role) {
        case (.rootless, _), (.run, .other), (.run, .keeper): []
        case (.run, .loop), (.serve, .loop), (.sidecar, .loop): carrying
        case (.serve, .keeper): keeping
        case (.sidecar, .keeper): settingUp
        case (.serve, .other), (.sidecar, .other): serving
        }
    }

    private var carrying: [Grant] {
        [
            Grant(.netAdmin, "pins addresses by nftables" + (mode == .run ? "" : ", marks its own sockets")),
            Grant(
                .sysResource,
                "keeps pipes at their size beyond the user's share (fs.pipe-user-pages-soft)",
                isRequired: false
            ),
        ]
    }

    private var keeping: [Grant] {
        [
            Grant(.sysAdmin, "enters network namespaces, makes them, and mounts them"),
            Grant(.netAdmin, "addresses, routes and nftables in them"),
            Grant(.netRaw, "opens the sockets that tell programs of refused datagrams by ICMP"),
            Grant(.sysPtrace, "looks at the network namespaces of processes, its clients among them"),
            Grant(.dacOverride, "namespaces and container engines of users other than root", isRequired: false),
            Grant(.sysResource, "gives it to the threads that carry traffic, which it starts", isRequired: false),
        ]
    }

    /// Until the network is under enforcement.
    private var settingUp: [Grant] {
        [
            Grant(.netAdmin, "puts the rules in place by nftables"),
            Grant(.netRaw, "opens the sockets that tell programs of refused datagrams by ICMP"),
            Grant(.sysResource, "gives it to the threads that carry traffic, which it starts", isRequired: false),
        ]
    }

    private var serving: [Grant] {
        [
            Grant(.netBindService, "serves its API on a port below 1024", isRequired: false),
            Grant(.dacOverride, "its files lie in directories of users other than root", isRequired: false),
        ]
    }

    /// All that threads of a role may hold.
    public func most(_ role: Role) -> CapabilitySet {
        grants(role).reduce(into: []) { $0.formUnion($1.capability) }
    }

    /// What threads of a role hold at least, where the process began with it.
    public func least(_ role: Role) -> CapabilitySet {
        grants(role).filter(\.isRequired).reduce(into: []) { $0.formUnion($1.capability) }
    }

    /// What the process has to be started with.
    public var needed: CapabilitySet {
        switch mode {
        // To take capabilities from the command; addresses, routes and nftables; namespaces and mounts.
        case .run: [.setpcap, .netAdmin, .sysAdmin]
        case .rootless: []
        case .serve, .sidecar: least(.loop).union(least(.keeper))
        }
    }

    /// What its bounding set may have: where it cannot be emptied, for want of CAP_SETPCAP, whoever starts the process
    /// bounds it.
    public var mostBounded: CapabilitySet { Role.allCases.reduce(into: []) { $0.formUnion(most($1)) } }

    /// How many system call filters every thread is under at least.
    public static let filters = 2
}
