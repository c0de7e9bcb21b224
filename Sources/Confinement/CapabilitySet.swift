/// Capabilities of capabilities(7), by their bits in linux/capability.h.
public struct CapabilitySet: OptionSet, Hashable, Sendable {
    /// The bits, as the kernel counts them.
    public let rawValue: UInt64

    /// A set from its bits.
    public init(rawValue: UInt64) {
        self.rawValue = rawValue
    }

    /// CAP_DAC_OVERRIDE
    public static let dacOverride = CapabilitySet(rawValue: 1 << 1)
    /// CAP_SETPCAP
    public static let setpcap = CapabilitySet(rawValue: 1 << 8)
    /// CAP_NET_BIND_SERVICE
    public static let netBindService = CapabilitySet(rawValue: 1 << 10)
    /// CAP_NET_ADMIN
    public static let netAdmin = CapabilitySet(rawValue: 1 << 12)
    /// CAP_NET_RAW
    public static let netRaw = CapabilitySet(rawValue: 1 << 13)
    /// CAP_SYS_PTRACE
    public static let sysPtrace = CapabilitySet(rawValue: 1 << 19)
    /// CAP_SYS_ADMIN
    public static let sysAdmin = CapabilitySet(rawValue: 1 << 21)
    /// CAP_SYS_RESOURCE
    public static let sysResource = CapabilitySet(rawValue: 1 << 24)

    /// The kernel's names, by bit.
    private static let kernelNames = [
        "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP",
        "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER",
        "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE",
        "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP",
        "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF",
        "CHECKPOINT_RESTORE",
    ]

    /// The names in the kernel's order, `CAP_` in front; of bits that have none yet, their numbers.
    public var names: [String] {
        (0..<64).filter { rawValue >> UInt64($0) & 1 == 1 }.map { bit in
            bit < Self.kernelNames.count ? "CAP_\(Self.kernelNames[bit])" : "capability \(bit)"
        }
    }
}
