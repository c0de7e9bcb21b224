internal import Glibc

/// What the mount plan asks the node's file system.
enum FileSystem {
    /// What a directory entry is.
    enum Kind: Equatable {
        case file, directory, link, socket, other
    }

    /// What lies at `path`, symbolic links not followed; `nil` when nothing does.
    static func kind(of path: String) -> Kind? {
        var status = stat()
        guard lstat(path, &status) == 0 else { return nil }
        switch status.st_mode & S_IFMT {
        case S_IFREG: return .file
        case S_IFDIR: return .directory
        case S_IFLNK: return .link
        case S_IFSOCK: return .socket
        default: return .other
        }
    }

    /// The permission bits of what lies at `path`; `nil` when nothing does.
    static func mode(of path: String) -> UInt32? {
        var status = stat()
        return lstat(path, &status) == 0 ? status.st_mode & 0o7777 : nil
    }

    /// How many names a file has; 0 when there is none at `path`.
    static func links(to path: String) -> Int {
        var status = stat()
        return lstat(path, &status) == 0 ? Int(status.st_nlink) : 0
    }

    /// What a directory holds, sorted by name; empty when it cannot be read.
    static func entries(in directory: String) -> [(name: String, kind: Kind?)] {
        entriesIfReadable(in: directory) ?? []
    }

    /// What a directory holds, sorted by name; `nil` when it cannot be read.
    static func entriesIfReadable(in directory: String) -> [(name: String, kind: Kind?)]? {
        guard let stream = opendir(directory) else { return nil }
        defer { closedir(stream) }
        var entries: [(name: String, kind: Kind?)] = []
        while let entry = readdir(stream) {
            let name = withUnsafePointer(to: &entry.pointee.d_name) {
                $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            guard name != "." && name != ".." else { continue }
            // The type comes with the name; asking for each entry would make a large /tmp costly.
            let kind: Kind? =
                switch Int(entry.pointee.d_type) {
                case Int(DT_REG): .file
                case Int(DT_DIR): .directory
                case Int(DT_LNK): .link
                case Int(DT_SOCK): .socket
                case Int(DT_UNKNOWN): self.kind(of: "\(directory)/\(name)")
                default: .other
                }
            entries.append((name, kind))
        }
        return entries.sorted { $0.name < $1.name }
    }

    /// Where a symbolic link points, as it is written; `nil` when `path` is none.
    static func destination(of path: String) -> String? {
        var buffer = [CChar](repeating: 0, count: Int(PATH_MAX))
        let count = readlink(path, &buffer, buffer.count)
        guard count > 0 else { return nil }
        return String(decoding: buffer[..<count].map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    /// The path without symbolic links; `nil` when it leads nowhere.
    static func realPath(_ path: String) -> String? {
        guard let resolved = realpath(path, nil) else { return nil }
        defer { free(resolved) }
        return String(cString: resolved)
    }

    /// All of a file of the kernel's; empty when it cannot be read.
    static func contents(of path: String) -> [UInt8] {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return [] }
        defer { close(descriptor) }
        var contents: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 65536)
        while true {
            let count = read(descriptor, &buffer, buffer.count)
            if count < 0 && errno == EINTR { continue }
            guard count > 0 else { return contents }
            contents += buffer[..<count]
        }
    }

    /// Whether `path` is `directory` or lies below it; both without symbolic links.
    static func isBelow(_ path: String, _ directory: String) -> Bool {
        path == directory || path.hasPrefix(directory + "/")
    }
}
