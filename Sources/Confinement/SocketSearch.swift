internal import Glibc
internal import Namespaces

/// A walk through the file system that looks for socket files, nearest directories first.
struct SocketSearch {
    /// A socket file under all of its names that were found.
    private struct File {
        let links: Int
        var names: Set<String> = []
    }

    private struct Identity: Hashable {
        let device: UInt64
        let inode: UInt64
    }

    private let mounts: [MountedFileSystem]
    /// Directories that the command finds new.
    private let renewed: [String]
    /// Mount points that are not walked into: what is no place for sockets, or might not answer.
    private let unwalked: Set<String>
    private var files: [Identity: File] = [:]
    /// Directories that a walk did not get to.
    private var pending: [String] = []
    /// Directories that a walk has taken up.
    private var seen: Set<String> = []
    private var glanced: Set<String> = []
    /// Whether there was a directory that may be passed but not listed, or a name that is no text.
    private var hasBlindSpot = false

    init(mounts: [MountedFileSystem], renewed: [String]) {
        self.mounts = mounts
        self.renewed = renewed
        unwalked = Set(mounts.filter { $0.isOfTheKernel || $0.isRemote }.map(\.point))
    }

    /// Whether everything that was added has been looked at.
    var isComplete: Bool { pending.isEmpty && !hasBlindSpot }

    /// Whether a directory is no other machine's or process's, who might not answer.
    func isLocal(_ directory: String) -> Bool { !unwalked.contains(directory) }

    /// Every name that was found, and what else these files are called where a file system is mounted twice. Sorted.
    var paths: [String] {
        files.flatMap { identity, file in
            file.names.union(file.names.flatMap(aliases).filter { Self.status(of: $0)?.identity == identity })
        }.sorted()
    }

    /// Those of the directories that were not looked at, and are worth it. Each is given once.
    private mutating func unseen(_ directories: [String]) -> [String] {
        directories.filter { !isRenewed($0) && seen.insert($0).inserted }
    }

    /// Looks at a name and at what lies beside it: whoever binds a socket under a passing name links or renames it
    /// there.
    mutating func look(around path: String) {
        guard path.hasPrefix("/"), let name = path.split(separator: "/").last else { return }
        let written = path.split(separator: "/").dropLast().reduce("") { "\($0)/\($1)" }
        // A directory that this user cannot look up is none that the command gets through.
        guard let directory = FileSystem.realPath(written.isEmpty ? "/" : written), !isRenewed(directory) else {
            return
        }
        note("\(directory == "/" ? "" : directory)/\(name)")
        // What lies below it is a walk's to find.
        if glanced.insert(directory).inserted { _ = list(directory) }
    }

    /// Walks through places, level by level, and through so many directories at most.
    mutating func walk(_ places: [String], directories limit: Int) {
        var queue = unseen(places)
        var next = 0
        while next < queue.count && next < limit {
            queue += unseen(list(queue[next]))
            next += 1
        }
        pending += queue[next...]
    }

    /// Walks on where the walks so far have stopped, and then through `places`.
    mutating func walkOn(from places: [String], directories limit: Int) {
        let stopped = pending
        pending = []
        seen.subtract(stopped)
        walk(stopped + places, directories: limit)
    }

    /// Whether a socket is out of the command's reach: all of its names were found, or none can lead to it.
    func hasPlaced(_ socket: BoundUnixSocket) -> Bool {
        guard mounts.contains(where: { $0.device == socket.device && !isRenewed($0.point) }) else { return true }
        if socket.name.hasPrefix("/") {
            if isRenewed(socket.name) && mount(of: socket.name)?.device == socket.device { return true }
            if isBarred(socket.name) { return true }
        }
        return files.contains { identity, file in
            guard let name = file.names.first, let mount = mount(of: name), mount.device == socket.device else {
                return false
            }
            // An overlay's table of sockets may have other inode numbers than its files.
            let isSame =
                UInt32(truncatingIfNeeded: identity.inode) == socket.inode
                || (mount.type == "overlay" && file.names.contains(socket.name))
            return isSame && Set(file.names.map { self.mount(of: $0)?.inside($0) ?? $0 }).count >= file.links
        }
    }

    /// Where a socket's name may lie, seen from here: its program may have another root.
    func places(of socket: BoundUnixSocket) -> [String] {
        guard socket.name.hasPrefix("/") else { return [] }
        return [socket.name]
            + mounts.filter { $0.device == socket.device && $0.point != "/" }.map { $0.point + socket.name }
    }

    /// The mount points of a device.
    func points(of devices: Set<BoundUnixSocket.Device>) -> [String] {
        mounts.filter { devices.contains($0.device) && !$0.isOfTheKernel }.map(\.point)
    }
}

// MARK: - Looking

extension SocketSearch {
    private func isRenewed(_ path: String) -> Bool { renewed.contains { FileSystem.isBelow(path, $0) } }

    /// Notes the sockets in a directory; returns the directories in it. Nothing is asked about other files: the type
    /// comes with the name.
    private mutating func list(_ directory: String) -> [String] {
        guard let stream = opendir(directory) else {
            if errno == EACCES && access(directory, X_OK) == 0 { hasBlindSpot = true }
            return []
        }
        defer { closedir(stream) }
        let prefix = directory == "/" ? "" : directory
        var directories: [String] = []
        while let entry = readdir(stream) {
            let type = Int(entry.pointee.d_type)
            guard type == Int(DT_SOCK) || type == Int(DT_DIR) || type == Int(DT_UNKNOWN) else { continue }
            let name = withUnsafePointer(to: &entry.pointee.d_name) {
                $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(validatingCString: $0) }
            }
            guard let name else {
                hasBlindSpot = true
                continue
            }
            if name == "." || name == ".." { continue }
            let child = "\(prefix)/\(name)"
            let isDirectory =
                type == Int(DT_DIR) || (type == Int(DT_UNKNOWN) && FileSystem.kind(of: child) == .directory)
            if !isDirectory {
                note(child)
            } else if !unwalked.contains(child) {
                directories.append(child)
            }
        }
        return directories
    }

    private mutating func note(_ path: String) {
        guard let status = Self.status(of: path) else { return }
        files[status.identity, default: File(links: status.links)].names.insert(path)
    }

    /// `nil` for what is no socket.
    private static func status(of path: String) -> (identity: Identity, links: Int)? {
        var status = stat()
        guard lstat(path, &status) == 0, status.st_mode & S_IFMT == S_IFSOCK else { return nil }
        return (Identity(device: UInt64(status.st_dev), inode: UInt64(status.st_ino)), Int(status.st_nlink))
    }

    /// Whether this user, who is the command's, may not pass a directory on the way.
    private func isBarred(_ path: String) -> Bool {
        var status = stat()
        return lstat(path, &status) != 0 && errno == EACCES
    }

    /// The uppermost mount that `path` lies in.
    private func mount(of path: String) -> MountedFileSystem? {
        mounts.last { mount in
            mount.point == "/" ? true : FileSystem.isBelow(path, mount.point)
        }
    }

    /// Other names of a file, through other mounts of its file system.
    private func aliases(of path: String) -> [String] {
        guard let own = mount(of: path) else { return [] }
        let inside = own.inside(path)
        return mounts.compactMap { mount in
            mount.device == own.device ? mount.outside(inside) : nil
        }.filter { !isRenewed($0) }
    }
}

extension MountedFileSystem {
    /// What a path below the mount point is in the file system itself.
    fileprivate func inside(_ path: String) -> String {
        (root == "/" ? "" : root) + (point == "/" ? path : String(path.dropFirst(point.count)))
    }

    /// Where a path in the file system is to be seen through this mount; `nil` when it is not.
    fileprivate func outside(_ path: String) -> String? {
        guard root == "/" || FileSystem.isBelow(path, root) else { return nil }
        return (point == "/" ? "" : point) + (root == "/" ? path : String(path.dropFirst(root.count)))
    }
}
