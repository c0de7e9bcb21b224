internal import FilePrimitives
internal import Glibc

/// What the mount plan asks the node's file system.
enum FileSystem {
    /// What lies at `path`, symbolic links not followed; `nil` when nothing does.
    static func kind(of path: SystemString) -> FileKind? {
        var status = stat()
        guard lstat(path.cString, &status) == 0 else { return nil }
        switch status.st_mode & S_IFMT {
        case S_IFREG: return .file
        case S_IFDIR: return .directory
        case S_IFLNK: return .link
        case S_IFSOCK: return .socket
        default: return .other
        }
    }

    /// The permission bits of what lies at `path`; `nil` when nothing does.
    static func mode(of path: SystemString) -> UInt32? {
        var status = stat()
        return lstat(path.cString, &status) == 0 ? status.st_mode & 0o7777 : nil
    }

    /// How many names a file has; 0 when there is none at `path`.
    static func links(to path: SystemString) -> Int {
        var status = stat()
        return lstat(path.cString, &status) == 0 ? Int(status.st_nlink) : 0
    }

    /// What a directory holds, sorted by name.
    static func entries(in directory: SystemString) throws(ConfinementError) -> [(name: SystemString, kind: FileKind?)]
    {
        do throws(DirectoryStream.Failure) {
            var stream = try DirectoryStream(directory)
            var entries: [(name: SystemString, kind: FileKind?)] = []
            while let entry = try stream.next() {
                // The type comes with the name; asking for each entry would make a large /tmp costly.
                entries.append((entry.name, entry.kind ?? kind(of: "\(directory)/\(entry.name)")))
            }
            return entries.sorted { $0.name < $1.name }
        } catch {
            throw ConfinementError("cannot list \(directory)", errno: error.errno)
        }
    }

    /// The same; `nil` when it cannot be listed to its end, for whatever reason.
    static func entriesIfReadable(in directory: SystemString) -> [(name: SystemString, kind: FileKind?)]? {
        try? entries(in: directory)
    }

    /// What a directory holds, sorted by name; empty when there is none that this user may list.
    static func entriesIfAllowed(in directory: SystemString) throws(ConfinementError) -> [(
        name: SystemString, kind: FileKind?
    )] {
        do {
            return try entries(in: directory)
        } catch {
            guard [EACCES, ENOENT, ENOTDIR].contains(error.errno) else { throw error }
            return []
        }
    }

    /// Where a symbolic link points, as it is written; `nil` when `path` is none.
    static func destination(of path: SystemString) -> SystemString? {
        var buffer = [CChar](repeating: 0, count: Int(PATH_MAX))
        let count = readlink(path.cString, &buffer, buffer.count)
        guard count > 0 else { return nil }
        return SystemString(bytes: buffer[..<count].map { UInt8(bitPattern: $0) })
    }

    /// All of a file of the kernel's.
    static func contents(of path: String) throws(ConfinementError) -> [UInt8] {
        func failure() -> ConfinementError { ConfinementError("cannot read \(path)", errno: errno) }
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { throw failure() }
        defer { close(descriptor) }
        var contents: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 65536)
        while true {
            let count = read(descriptor, &buffer, buffer.count)
            if count < 0 && errno == EINTR { continue }
            guard count >= 0 else { throw failure() }
            if count == 0 { return contents }
            contents += buffer[..<count]
        }
    }

    /// Whether two paths lead to the same.
    static func isSame(_ path: SystemString, _ other: SystemString) -> Bool {
        var status = stat()
        return stat(path.cString, &status) == 0 && isSame(status, other)
    }

    /// Whether a path leads to what has this status.
    static func isSame(_ status: stat, _ path: SystemString) -> Bool {
        var other = stat()
        return stat(path.cString, &other) == 0 && other.st_dev == status.st_dev && other.st_ino == status.st_ino
    }

    /// Whether this user may do with a path what access(2) is asked: `W_OK` and the like.
    static func allows(_ path: SystemString, _ mode: CInt) -> Bool { access(path.cString, mode) == 0 }

    /// Whether an error says that this process or the machine has no more of something at the moment, and nothing of what was
    /// asked for.
    static func isShortage(_ errno: CInt) -> Bool {
        [EAGAIN, EMFILE, ENFILE, ENOBUFS, ENOMEM].contains(errno)
    }
}
