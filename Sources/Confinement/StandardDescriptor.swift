internal import CLinux
internal import FilePrimitives
internal import Glibc

/// What a command is handed as its standard input, output and error is its to use, past every rule: what is sent to a
/// connected socket leaves, a directory leads to the node's files as they were before anything was hidden, a namespace can
/// be entered by whoever made it, and a file that was opened for reading is opened again for writing by its name in
/// `/proc/self/fd`, through the node's mount of it.
///
/// So only what is known to be harmless passes: files, terminals, pipes, `/dev/null` and its like, and Unix sockets that
/// have their peer for good. Socket pairs are how process managers read a program's output, and whoever holds the other
/// end is whom the command was meant to talk to.
struct StandardDescriptor {
    private let name: String
    private let descriptor: CInt
    private let status: stat

    /// `nil` for a descriptor that is closed: init says so.
    private init?(_ name: String, _ descriptor: CInt) {
        var status = stat()
        guard fstat(descriptor, &status) == 0 else { return nil }
        self.name = name
        self.descriptor = descriptor
        self.status = status
    }

    /// - Parameter readOnlyPaths: what the command may not change.
    /// - Throws: what one of the three is, and why it cannot be passed on.
    static func requireAllHarmless(
        _ descriptors: (input: CInt, output: CInt, error: CInt),
        protecting readOnlyPaths: [SystemString]
    ) throws(ConfinementError) {
        let named = [("input", descriptors.input), ("output", descriptors.output), ("error", descriptors.error)]
        for (name, number) in named {
            guard let descriptor = StandardDescriptor(name, number) else { continue }
            try descriptor.requireHarmless(protecting: readOnlyPaths)
        }
    }

    private func requireHarmless(protecting readOnlyPaths: [SystemString]) throws(ConfinementError) {
        switch status.st_mode & S_IFMT {
        case S_IFIFO: return
        case S_IFSOCK: try requireHarmlessSocket()
        case S_IFREG: try requireHarmlessFile(protecting: readOnlyPaths)
        case S_IFCHR: try requireHarmlessDevice()
        case S_IFBLK: throw refusal(of: "a disk", since: "the files that are read-only or hidden can be changed by it")
        case S_IFDIR: throw refusal(of: "a directory", since: "it leads to what is hidden", pipeHelps: false)
        // epoll, io_uring, BPF, before Linux 6.9 a process.
        default:
            throw refusal(of: "what is no file, pipe, terminal or socket", since: "it may lead past the policy")
        }
    }

    private func requireHarmlessSocket() throws(ConfinementError) {
        guard option(SO_DOMAIN) == AF_UNIX else {
            throw refusal(of: "a network socket", since: "it leads past the policy")
        }
        // By an abstract name it would reach the node's programs: those names are of the network that the socket was made in.
        guard isConnectedForGood else {
            throw refusal(of: "a unix socket that can be connected elsewhere", since: "it leads past the policy")
        }
    }

    private func requireHarmlessFile(protecting readOnlyPaths: [SystemString]) throws(ConfinementError) {
        guard !isOfTheKernel else {
            throw refusal(of: "a file of the kernel's", since: "settings, processes and namespaces can be had by it")
        }
        let path = FileSystem.destination(of: "/proc/self/fd/\(descriptor)") ?? ""
        for own in readOnlyPaths where FileSystem.isSame(status, own) || path.isBelow(own) {
            throw refusal(of: own.description, since: "the command could change it by that")
        }
    }

    private func requireHarmlessDevice() throws(ConfinementError) {
        guard isatty(descriptor) == 1 || Device.holdsNothing(status.st_rdev) else {
            throw refusal(of: "a device that is no terminal", since: "it may lead past the policy")
        }
    }

    private func refusal(of what: String, since reason: String, pipeHelps: Bool = true) -> ConfinementError {
        ConfinementError(
            "cannot pass \(what) on as standard \(name), since \(reason)",
            errno: EPERM,
            remedy: pipeHelps ? "put a pipe between, as a shell's | does" : ""
        )
    }
}

// MARK: - Facts

extension StandardDescriptor {
    /// File systems whose files are no data, from `<linux/magic.h>` and, for those that have no place there, their sources.
    private static let kernelFileSystems: Set<Int> = [
        0x9fa0,  // proc
        0x6265_6572,  // sysfs
        0x6e73_6673,  // nsfs
        0x5049_4446,  // pidfs
        0x0027_e0eb,  // cgroup
        0x6367_7270,  // cgroup2
        0xcafe_4a11,  // bpf
        0x6462_6720,  // debugfs
        0x7472_6163,  // tracefs
        0x7363_6673,  // securityfs
        0xf97c_ff8c,  // selinuxfs
        0x4341_5d53,  // smackfs
        0x4249_4e4d,  // binfmt_misc
        0x6265_6570,  // configfs
        0x1980_0202,  // mqueue
        0xde5e_81e4,  // efivarfs
        0x6165_676c,  // pstore
        0x6759_6969,  // rpc_pipefs
        0x6e66_7364,  // nfsd
        0xabba_1974,  // xenfs
    ]

    private var isOfTheKernel: Bool {
        let type = clinux_file_system_type(descriptor)
        return type < 0 || Self.kernelFileSystems.contains(type)
    }

    /// Whether a Unix socket has its peer and can get no other.
    private var isConnectedForGood: Bool {
        var address = sockaddr_un()
        var length = socklen_t(MemoryLayout<sockaddr_un>.size)
        let hasPeer = withUnsafeMutablePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { getpeername(descriptor, $0, &length) == 0 }
        }
        return hasPeer && option(SO_TYPE) != CInt(SOCK_DGRAM.rawValue)
    }

    private func option(_ name: CInt) -> CInt {
        var value: CInt = -1
        var length = socklen_t(MemoryLayout<CInt>.size)
        return getsockopt(descriptor, SOL_SOCKET, name, &value, &length) == 0 ? value : -1
    }
}
