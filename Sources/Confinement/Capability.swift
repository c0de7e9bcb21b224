/// The capabilities of capabilities(7) that a confined command may keep; it keeps those of them that its supervisor has.
///
/// The list is Docker's default without NET_RAW (packet sockets go past the ruleset), SETPCAP, MKNOD (device nodes of
/// the node's disks), AUDIT_WRITE. What else is missing from it could undo the confinement or regain what is missing:
/// NET_ADMIN, SYS_ADMIN, SYS_PTRACE, SYS_MODULE, DAC_READ_SEARCH, BPF and the like.
enum Capability: UInt64, CaseIterable {
    case changeOwner = 0
    case overrideDiscretionaryAccess = 1
    case actAsFileOwner = 3
    case keepSetIDBits = 4
    case kill = 5
    case setGroupID = 6
    case setUserID = 7
    case bindLowPorts = 10
    case changeRoot = 18
    case setFileCapabilities = 31

    /// All of them as bits.
    static let allowed = allCases.reduce(UInt64(0)) { $0 | 1 << $1.rawValue }
}
