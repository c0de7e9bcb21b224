internal import CLinux
public import FilePrimitives
internal import Glibc

/// A network namespace, held by a descriptor. The namespace lives as long as the descriptor, or a process, a mount or
/// a socket in it.
public final class NetworkNamespace: Sendable {
    /// The descriptor of the namespace (`/proc/…/ns/net`), close-on-exec, owned by this object.
    public let descriptor: CInt

    /// Takes over a descriptor.
    public init(owning descriptor: CInt) {
        self.descriptor = descriptor
    }

    deinit {
        close(descriptor)
    }

    /// Makes a namespace that has no name and holds nothing but its own loopback device, down.
    ///
    /// The calling thread stays where it is: a thread of its own leaves into the new namespace, opens it, and ends.
    public static func anonymous() throws(NamespaceError) -> NetworkNamespace {
        try typed {
            try onDedicatedThread {
                guard clinux_unshare_network() == 0 else {
                    let error = errno
                    throw NamespaceError(
                        "cannot make a network namespace",
                        errno: error,
                        detail: NamespaceLimit.cause(error, of: [.network])
                    )
                }
                return try open(path: "/proc/thread-self/ns/net")
            }
        }
    }

    /// The namespace of the calling thread.
    public static func current() throws(NamespaceError) -> NetworkNamespace {
        try open(path: "/proc/thread-self/ns/net")
    }

    /// Opens a namespace by a path such as `/run/netns/NAME` or `/proc/PID/ns/net`.
    public static func open(path: SystemString) throws(NamespaceError) -> NetworkNamespace {
        let descriptor = Glibc.open(path.cString, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { throw NamespaceError("cannot open namespace \(path)", errno: errno) }
        return NetworkNamespace(owning: descriptor)
    }

    /// Runs `body` inside the namespace and returns its result. Sockets that it opens stay in the namespace for good.
    ///
    /// `body` runs on a thread of its own while the caller waits; the caller's thread never leaves its namespace.
    public func enter<Result>(_ body: () throws -> Result) throws -> Result {
        try onDedicatedThread {
            try moveIn()
            return try body()
        }
    }

    /// Has the calling thread live in the namespace: what it opens from now on is opened there, and nothing leads back. For a
    /// thread that was made for it, and ends in there. Needs CAP_SYS_ADMIN, which the thread may let go of afterwards.
    public func moveIn() throws(NamespaceError) {
        guard clinux_join_network(descriptor) == 0 else {
            throw NamespaceError("cannot enter a network namespace", errno: errno)
        }
    }

    /// Whether the descriptor is of a network namespace, and not of a file or of another kind.
    public var isNetwork: Bool { clinux_namespace_type(descriptor) == clinux_network_namespace }

    /// The number that tells namespaces apart: the inode of the descriptor.
    public var identifier: UInt64 {
        var status = stat()
        // fstat of a descriptor that this object owns cannot fail.
        guard fstat(descriptor, &status) == 0 else { preconditionFailure("the namespace's descriptor was closed") }
        return UInt64(status.st_ino)
    }
}

// MARK: - Names

extension NetworkNamespace {
    /// Gives the namespace a place in the file system, as ip-netns(8) does: an empty file that it is mounted on. It
    /// lives on there without any process. Throws EEXIST when `path` exists. Needs CAP_SYS_ADMIN.
    public func mount(at path: String) throws(NamespaceError) {
        let file = Glibc.open(path, O_CREAT | O_EXCL | O_RDONLY | O_CLOEXEC | O_NOFOLLOW, 0o444)
        guard file >= 0 else { throw NamespaceError("cannot create \(path)", errno: errno) }
        close(file)
        guard Glibc.mount("/proc/self/fd/\(descriptor)", path, nil, UInt(MS_BIND), nil) == 0 else {
            let error = NamespaceError("cannot mount a network namespace at \(path)", errno: errno)
            unlink(path)
            throw error
        }
    }

    /// Takes the place of ``mount(at:)`` away. What is gone already is no error. The namespace lives on while something
    /// else holds it.
    public static func unmount(_ path: String) throws(NamespaceError) {
        // Several mounts may lie on one another, after a crash between two steps.
        while umount2(path, CInt(MNT_DETACH) | CInt(UMOUNT_NOFOLLOW)) == 0 {}
        guard unlink(path) == 0 || errno == ENOENT else {
            throw NamespaceError("cannot remove \(path)", errno: errno)
        }
    }
}

/// Narrows the error of a closure that throws nothing but `NamespaceError`.
func typed<Result>(_ body: () throws -> Result) throws(NamespaceError) -> Result {
    do {
        return try body()
    } catch let error as NamespaceError {
        throw error
    } catch {
        preconditionFailure("unexpected error \(error)")
    }
}
