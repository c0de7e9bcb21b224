internal import CLinux
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
    public static func open(path: String) throws(NamespaceError) -> NetworkNamespace {
        let descriptor = Glibc.open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { throw NamespaceError("cannot open namespace \(path)", errno: errno) }
        return NetworkNamespace(owning: descriptor)
    }

    /// Runs `body` inside the namespace and returns its result. Sockets that it opens stay in the namespace for good.
    ///
    /// `body` runs on a thread of its own while the caller waits; the caller's thread never leaves its namespace.
    public func enter<Result>(_ body: () throws -> Result) throws -> Result {
        try onDedicatedThread {
            guard clinux_join_network(descriptor) == 0 else {
                throw NamespaceError("cannot enter a network namespace", errno: errno)
            }
            return try body()
        }
    }

    /// The number that tells namespaces apart: the inode of the descriptor.
    public var identifier: UInt64 {
        var status = stat()
        // fstat of a descriptor that this object owns cannot fail.
        guard fstat(descriptor, &status) == 0 else { preconditionFailure("the namespace's descriptor was closed") }
        return UInt64(status.st_ino)
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
