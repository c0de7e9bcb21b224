internal import FilePrimitives
internal import Namespaces

/// A mount of this thread's mount namespace, from `/proc/thread-self/mountinfo` (proc_pid_mountinfo(5)).
struct MountedFileSystem: Equatable {
    /// The kernel's number of the mount.
    var identifier: Int64 = 0
    /// Where it is mounted.
    let point: SystemString
    /// Its type, such as `proc`.
    let type: String
    /// Which of its directories is mounted: `/` for all of it.
    var root: SystemString = "/"
    /// The file system's device.
    var device = BoundUnixSocket.Device(major: 0, minor: 0)

    /// Types of file systems that show what the kernel has, whoever looks: settings through which root changes it, whatever
    /// namespace it is in, and the terminals, message queues and namespaces of others.
    private static let kernelTypes: Set<String> = [
        "binder", "binfmt_misc", "bpf", "cgroup", "cgroup2", "configfs", "debugfs", "devpts", "efivarfs", "functionfs",
        "fusectl", "gadgetfs", "mqueue", "nfsd", "nsfs", "proc", "pstore", "resctrl", "rpc_pipefs", "securityfs",
        "selinuxfs", "smackfs", "sysfs", "tracefs", "xenfs",
    ]
    /// Types whose files another machine or process has, which may take its time to answer.
    private static let remoteTypes: Set<String> = ["9p", "afs", "autofs", "ceph", "cifs", "nfs", "nfs4", "smb3"]

    /// Whether it shows the kernel and no files.
    var isOfTheKernel: Bool { Self.kernelTypes.contains(type) }
    /// Whether a name that is looked up in it has a program outside mount something.
    var isAutomount: Bool { type == "autofs" }
    /// Whether listing it may take long.
    var isRemote: Bool { Self.remoteTypes.contains(type) || type == "fuse" || type.hasPrefix("fuse.") }
}

// MARK: - Paths

extension MountedFileSystem {
    /// What a path below the mount point is in the file system itself: `/` for the root directory.
    func inside(_ path: SystemString) -> SystemString {
        let rest = point == "/" ? path : path.dropFirst(point.bytes.count)
        return Self.joined(root, rest)
    }

    /// Where a path in the file system is to be seen through this mount; `nil` when it is not.
    func outside(_ inside: SystemString) -> SystemString? {
        guard inside.isBelow(root) else { return nil }
        return Self.joined(point, root == "/" ? inside : inside.dropFirst(root.bytes.count))
    }

    /// `rest` is empty, or begins with a slash.
    private static func joined(_ directory: SystemString, _ rest: SystemString) -> SystemString {
        let path = (directory == "/" ? "" : directory) + (rest == "/" ? "" : rest)
        return path.isEmpty ? "/" : path
    }
}

// MARK: - Reading

extension MountedFileSystem {
    /// Reads a line; `nil` for what is none: `36 35 98:0 /root /point options optional… - type source options`.
    init?(line: some Collection<UInt8>) {
        let fields = line.split(separator: UInt8(ascii: " "), omittingEmptySubsequences: false)
        guard let separator = fields.firstIndex(where: { $0.elementsEqual("-".utf8) }),
            separator >= 6, separator + 1 < fields.count
        else { return nil }
        identifier = Int64(String(decoding: fields[0], as: UTF8.self)) ?? 0
        root = Self.unescape(fields[3])
        point = Self.unescape(fields[4])
        let numbers = String(decoding: fields[2], as: UTF8.self).split(separator: ":").compactMap { UInt32($0) }
        if numbers.count == 2 { device = BoundUnixSocket.Device(major: numbers[0], minor: numbers[1]) }
        type = String(decoding: fields[separator + 1], as: UTF8.self)
    }

    /// Replaces `\040` and the like, which stand for white space and the backslash.
    private static func unescape(_ field: some Collection<UInt8>) -> SystemString {
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
        return SystemString(bytes: result)
    }
}
