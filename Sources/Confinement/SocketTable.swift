internal import FilePrimitives
internal import Glibc
internal import Namespaces

/// What the kernel tells of Unix sockets that programs have bound in the file system, in whatever network namespace they
/// are: a path leads to a socket from all of them.
struct SocketTable {
    /// Those of the namespaces that could be asked.
    private(set) var sockets: Set<BoundUnixSocket> = []
    /// The names of the others': of namespaces that this process may not enter, or all where the kernel has no unix_diag.
    private(set) var names: Set<SystemString> = []

    /// Asks for this namespace, and for that of every process and every mount.
    /// - Throws: when it cannot ask for want of memory or descriptors, so that it would know less than it could.
    init(mounts: [MountedFileSystem]) throws(ConfinementError) {
        if let own = try Self.found({ try BoundUnixSocket.all() }) {
            sockets = own
        } else {
            names.formUnion(Self.names(in: try FileSystem.contents(of: "/proc/thread-self/net/unix")))
        }
        var asked: Set<UInt64> = []
        if let own = try? NetworkNamespace.current() { asked.insert(own.identifier) }
        for mount in mounts where mount.type == "nsfs" { _ = try ask(mount.point, &asked) }
        var read: Set<UInt64> = [Self.inode(of: "/proc/thread-self/net/unix") ?? 0]
        for (process, _) in try FileSystem.entries(in: "/proc") where Int32(process.description) != nil {
            if try ask("/proc/\(process)/ns/net", &asked) { continue }
            // The table is another file in each namespace.
            let table = "/proc/\(process)/net/unix"
            guard let inode = Self.inode(of: SystemString(table)), read.insert(inode).inserted else { continue }
            do {
                names.formUnion(Self.names(in: try FileSystem.contents(of: table)))
            } catch {
                // A process that has ended, or one that this user may not look at.
                if FileSystem.isShortage(error.errno) { throw error }
            }
        }
    }

    /// Whether the namespace at `path` has been asked, now or before.
    private mutating func ask(_ path: SystemString, _ asked: inout Set<UInt64>) throws(ConfinementError) -> Bool {
        guard let namespace = try Self.found({ try NetworkNamespace.open(path: path) }) else { return false }
        if asked.contains(namespace.identifier) { return true }
        guard let found = try Self.found({ try namespace.enter { try BoundUnixSocket.all() } }) else { return false }
        asked.insert(namespace.identifier)
        sockets.formUnion(found)
        return true
    }

    /// What `question` finds; `nil` when there is nothing to be asked, or this process may not.
    private static func found<Found>(_ question: () throws -> Found) throws(ConfinementError) -> Found? {
        do {
            return try question()
        } catch {
            guard let error = error as? NamespaceError, FileSystem.isShortage(error.errno) else { return nil }
            throw ConfinementError("cannot ask for unix sockets: \(error.operation)", errno: error.errno)
        }
    }

    private static func inode(of path: SystemString) -> UInt64? {
        var status = stat()
        return stat(path.cString, &status) == 0 ? UInt64(status.st_ino) : nil
    }

    /// The names in a table of `/proc/net/unix`, without the abstract ones: after seven columns, to the end of the line.
    static func names(in table: [UInt8]) -> [SystemString] {
        table.split(separator: UInt8(ascii: "\n")).dropFirst().compactMap { line in
            let columns = line.split(separator: UInt8(ascii: " "), maxSplits: 7, omittingEmptySubsequences: true)
            guard columns.count == 8, columns[7].first != UInt8(ascii: "@") else { return nil }
            return SystemString(bytes: columns[7])
        }
    }
}
