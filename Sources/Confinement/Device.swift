internal import FilePrimitives
internal import Glibc

/// Which devices of the node a command finds in its `/dev`: those that programs need and that lead nowhere by themselves.
///
/// A list of what is there, not of what is hidden: every machine has others. A serial line or a port of the hypervisor's
/// leads out, and so does an InfiniBand adapter, past every network namespace; a disk holds the policy, the records and
/// what is hidden, as plain bytes; a management controller has a network of its own.
enum Device {
    /// By their names below `/dev`: memory, the command's terminal, file systems and networks that a program makes in
    /// namespaces of its own, virtual machines, graphics.
    private static let usual: Set<SystemString> = [
        "null", "zero", "full", "random", "urandom", "tty", "fuse", "net/tun", "kvm", "ntsync", "udmabuf", "dxg", "kfd",
    ]
    /// Directories of processors for graphics and the like.
    private static let directories: Set<SystemString> = ["accel", "dma_heap", "dri", "nvidia-caps"]
    private static let graphicsOfNVIDIA: [SystemString] = [
        "nvidia-modeset", "nvidia-uvm", "nvidia-uvm-tools", "nvidiactl",
    ]

    /// Those that this machine has, sorted by name.
    static func found() throws(ConfinementError) -> [(name: SystemString, number: dev_t)] {
        var names = usual.union(graphicsOfNVIDIA)
        names.formUnion(try FileSystem.entries(in: "/dev").map { $0.name }.filter(isProcessorOfNVIDIA))
        for directory in directories {
            names.formUnion(try FileSystem.entriesIfAllowed(in: "/dev/\(directory)").map { "\(directory)/\($0.name)" })
        }
        return names.sorted().compactMap { name in
            number(of: "/dev/\(name)", type: S_IFCHR).map { (name, $0) }
        }
    }

    private static func isProcessorOfNVIDIA(_ name: SystemString) -> Bool {
        let digits = name.bytes.dropFirst(6)
        return name.hasPrefix("nvidia") && !digits.isEmpty
            && digits.allSatisfy((UInt8(ascii: "0")...UInt8(ascii: "9")).contains)
    }

    /// The device's number; `nil` when there is none of this type, by this name and not behind a link.
    static func number(of path: SystemString, type: mode_t) -> dev_t? {
        var status = stat()
        return lstat(path.cString, &status) == 0 && status.st_mode & S_IFMT == type ? status.st_rdev : nil
    }

    /// Whether it is `/dev/null`, `zero`, `full`, `random` or `urandom`, whatever its name.
    static func holdsNothing(_ number: dev_t) -> Bool {
        // linux/Documentation/admin-guide/devices.txt, where it keeps 12 bits for the major number and 20 for the minor.
        let major = (number >> 8) & 0xfff
        let minor = (number & 0xff) | (number >> 12) & 0xfff00
        return number >> 32 == 0 && major == 1 && [3, 5, 7, 8, 9].contains(minor)
    }
}
