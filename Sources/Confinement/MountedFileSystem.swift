internal import Namespaces

/// A mount of this thread's mount namespace, from `/proc/thread-self/mountinfo` (proc_pid_mountinfo(5)).
struct MountedFileSystem: Equatable {
    /// Where it is mounted.
    let point: String
    /// Its type, such as `proc`.
    let type: String
    /// Which of its directories is mounted: `/` for all of it.
    var root = "/"
    /// The file system's device.
    var device = BoundUnixSocket.Device(major: 0, minor: 0)

    /// Types of file systems through which root changes the kernel, whatever namespace it is in.
    private static let kernelTypes: Set<String> = [
        "binfmt_misc", "bpf", "cgroup", "cgroup2", "configfs", "debugfs", "efivarfs", "fusectl", "nfsd", "proc",
        "pstore", "rpc_pipefs", "securityfs", "selinuxfs", "smackfs", "sysfs", "tracefs",
    ]
    /// Types whose files another machine or process has, which may take its time to answer.
    private static let remoteTypes: Set<String> = ["9p", "afs", "autofs", "ceph", "cifs", "nfs", "nfs4", "smb3"]

    /// Whether it shows the kernel and no files.
    var isOfTheKernel: Bool { Self.kernelTypes.contains(type) }
    /// Whether listing it may take long.
    var isRemote: Bool { Self.remoteTypes.contains(type) || type == "fuse" || type.hasPrefix("fuse.") }

    /// All mounts, in the kernel's order.
    static func all() -> [MountedFileSystem] {
        FileSystem.contents(of: "/proc/thread-self/mountinfo").split(separator: UInt8(ascii: "\n")).compactMap(
            Self.init(line:)
        )
    }
}

extension MountedFileSystem {
    /// Reads a line: `36 35 98:0 /root /point options optional… - type source options`.
    init?(line: some Collection<UInt8>) {
        let fields = line.split(separator: UInt8(ascii: " "), omittingEmptySubsequences: false)
        guard let separator = fields.firstIndex(where: { $0.elementsEqual("-".utf8) }),
            separator >= 6, separator + 1 < fields.count
        else { return nil }
        root = Self.unescape(fields[3])
        point = Self.unescape(fields[4])
        let numbers = String(decoding: fields[2], as: UTF8.self).split(separator: ":").compactMap { UInt32($0) }
        if numbers.count == 2 { device = BoundUnixSocket.Device(major: numbers[0], minor: numbers[1]) }
        type = String(decoding: fields[separator + 1], as: UTF8.self)
    }

    /// Replaces `\040` and the like, which stand for white space and the backslash.
    private static func unescape(_ field: some Collection<UInt8>) -> String {
        let bytes = Array(field)
        var result: [UInt8] = []
        var index = 0
        while index < bytes.count {
            if bytes[index] == UInt8(ascii: "\\"), index + 3 < bytes.count,
                let byte = UInt8(String(decoding: bytes[(index + 1)...(index + 3)], as: UTF8.self), radix: 8)
            {
                result.append(byte)
                index += 4
            } else {
                result.append(bytes[index])
                index += 1
            }
        }
        return String(decoding: result, as: UTF8.self)
    }
}
