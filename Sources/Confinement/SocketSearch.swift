internal import FilePrimitives
internal import Glibc
internal import Namespaces

/// A walk through the file system that looks for socket files, nearest directories first.
struct SocketSearch {
    /// A socket file under all of its names that were found.
    private struct File {
        /// As unix_diag gives it, which has room for half of it.
        let inode: UInt32
        let links: Int
        /// The file system that it lies in; `nil` when the mount table does not know it.
        let mount: MountedFileSystem?
        var names: Set<SystemString> = []
        /// The names in the file system itself.
        var namesInside: Set<SystemString> = []
    }

    private struct Identity: Hashable {
        let device: UInt64
        let inode: UInt64
    }

    private let table: MountTable
    /// Directories that the command finds new.
    private let renewed: [SystemString]
    /// Mount points that are not walked into: what is no place for sockets, or might not answer.
    private let unwalked: Set<SystemString>
    private var files: [Identity: File] = [:]
    /// Directories that a walk did not get to.
    private var pending: [SystemString] = []
    /// Directories that a walk has taken up.
    private var seen: Set<SystemString> = []
    private var glanced: Set<SystemString> = []
    /// Whether there was a directory that may be passed but not listed.
    private var hasBlindSpot = false

    init(mounts: MountTable, renewed: [SystemString]) {
        table = mounts
        self.renewed = renewed
        unwalked = Set(mounts.mounts.filter { $0.isOfTheKernel || $0.isRemote }.map(\.point))
    }

    /// Whether everything that was added has been looked at.
    var isComplete: Bool { pending.isEmpty && !hasBlindSpot }

    /// Whether a directory is no other machine's or process's, who might not answer.
    func isLocal(_ directory: SystemString) -> Bool { !unwalked.contains(directory) }

    /// Every name that was found, and what else these files are called where a file system is mounted twice. Sorted.
    var paths: [SystemString] {
        files.flatMap { identity, file in
            file.names.union(
                file.names.flatMap(table.aliases).filter {
                    !isRenewed($0) && Self.status(of: $0)?.identity == identity
                }
            )
        }.sorted()
    }

    /// Those of the directories that were not looked at, and are worth it. Each is given once.
    private mutating func unseen(_ directories: [SystemString]) -> [SystemString] {
        directories.filter { !isRenewed($0) && seen.insert($0).inserted }
    }

    /// Looks at a name and at what lies beside it: whoever binds a socket under a passing name links or renames it
    /// there.
    mutating func look(around path: SystemString) throws(ConfinementError) {
        guard path.hasPrefix("/"), let name = path.components.last else { return }
        let written = path.components.dropLast().reduce("") { "\($0)/\($1)" as SystemString }
        // A directory that this user cannot look up is none that the command gets through.
        guard let directory = RealPath.of(written.isEmpty ? "/" : written), !isRenewed(directory) else {
            return
        }
        note("\(directory == "/" ? "" : directory)/\(name)")
        // What lies below it is a walk's to find.
        if glanced.insert(directory).inserted { _ = try list(directory) }
    }

    /// Looks at what is mounted by itself: a directory says of such a name what lies below.
    mutating func lookAtMountPoints() {
        for mount in table.mounts where !mount.isOfTheKernel && !mount.isRemote && !isRenewed(mount.point) {
            note(mount.point)
        }
    }

    /// Walks through places, level by level, through so many directories at most and until the deadline, which one
    /// directory may overrun.
    mutating func walk(
        _ places: [SystemString],
        directories limit: Int,
        until deadline: ContinuousClock.Instant? = nil
    ) throws(ConfinementError) {
        var queue = unseen(places)
        var next = 0
        while next < queue.count && next < limit && deadline.map({ .now < $0 }) ?? true {
            queue += unseen(try list(queue[next]))
            next += 1
        }
        pending += queue[next...]
    }

    /// Walks on where the walks so far have stopped, and then through `places`.
    mutating func walkOn(
        from places: [SystemString],
        directories limit: Int,
        until deadline: ContinuousClock.Instant
    ) throws(ConfinementError) {
        let stopped = pending
        pending = []
        seen.subtract(stopped)
        try walk(stopped + places, directories: limit, until: deadline)
    }

    /// Whether a socket is out of the command's reach: all of its names were found, or none can lead to it.
    func hasPlaced(_ socket: BoundUnixSocket) -> Bool {
        guard table.mounts.contains(where: { $0.device == socket.device && !isRenewed($0.point) }) else { return true }
        if socket.name.hasPrefix("/") {
            // Wherever else the directory is mounted it is renewed as well; single files were looked at.
            if isRenewed(socket.name) && table.mount(of: socket.name)?.device == socket.device { return true }
            if isBarred(socket.name) { return true }
        }
        return files.values.contains { file in
            guard let mount = file.mount, mount.device == socket.device else { return false }
            // An overlay's table of sockets may have other inode numbers than its files.
            let isSame =
                file.inode == socket.inode || (mount.type == "overlay" && file.names.contains(socket.name))
            return isSame && file.namesInside.count >= file.links
        }
    }

    /// Where a socket's name may lie, seen from here: its program may have another root, and what is mounted twice is there
    /// by another way, too.
    func places(of socket: BoundUnixSocket) -> [SystemString] {
        guard socket.name.hasPrefix("/") else { return [] }
        let mounts = table.mounts.filter { $0.device == socket.device }
        let own = table.mount(of: socket.name).flatMap { $0.device == socket.device ? $0 : nil }
        let ofTwoMounts = own.map { own in mounts.compactMap { $0.outside(own.inside(socket.name)) } } ?? []
        return [socket.name] + mounts.filter { $0.point != "/" }.map { $0.point + socket.name } + ofTwoMounts
    }

    /// The mount points of a device.
    func points(of devices: Set<BoundUnixSocket.Device>) -> [SystemString] {
        table.mounts.filter { devices.contains($0.device) && !$0.isOfTheKernel }.map(\.point)
    }
}

// MARK: - Looking

extension SocketSearch {
    private func isRenewed(_ path: SystemString) -> Bool { renewed.contains(where: path.isBelow) }

    /// Notes the sockets in a directory; returns the directories in it. Nothing is asked about other files: the type
    /// comes with the name.
    private mutating func list(_ directory: SystemString) throws(ConfinementError) -> [SystemString] {
        let prefix: SystemString = directory == "/" ? "" : directory
        var directories: [SystemString] = []
        do throws(DirectoryStream.Failure) {
            var stream = try DirectoryStream(directory)
            while let entry = try stream.next() {
                guard [.socket, .directory, nil].contains(entry.kind) else { continue }
                let child: SystemString = "\(prefix)/\(entry.name)"
                if entry.kind ?? FileSystem.kind(of: child) != .directory {
                    note(child)
                } else if !unwalked.contains(child) {
                    directories.append(child)
                }
            }
        } catch {
            if FileSystem.isShortage(error.errno) {
                throw ConfinementError("cannot list \(directory)", errno: error.errno)
            }
            let isGone = [ENOENT, ENOTDIR].contains(error.errno)
            let isClosed = error.errno == EACCES && !FileSystem.allows(directory, X_OK)
            if !isGone && !isClosed { hasBlindSpot = true }
        }
        return directories
    }

    private mutating func note(_ path: SystemString) {
        guard let status = Self.status(of: path) else { return }
        let mount = table.mount(of: path)
        let file = File(inode: UInt32(truncatingIfNeeded: status.identity.inode), links: status.links, mount: mount)
        files[status.identity, default: file].names.insert(path)
        files[status.identity]?.namesInside.insert(mount?.inside(path) ?? path)
    }

    /// `nil` for what is no socket.
    private static func status(of path: SystemString) -> (identity: Identity, links: Int)? {
        var status = stat()
        guard lstat(path.cString, &status) == 0, status.st_mode & S_IFMT == S_IFSOCK else { return nil }
        return (Identity(device: UInt64(status.st_dev), inode: UInt64(status.st_ino)), Int(status.st_nlink))
    }

    /// Whether this user, who is the command's, may not pass a directory on the way.
    private func isBarred(_ path: SystemString) -> Bool {
        var status = stat()
        return lstat(path.cString, &status) != 0 && errno == EACCES
    }

}
