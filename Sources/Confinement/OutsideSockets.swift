/// Unix sockets of the node that a command could reach through the file system, and through them the world outside: D-Bus,
/// container engines, agents, resolvers, databases, displays (threats.md T16).
///
/// A socket with a path can be reached from every network namespace. One with an abstract name cannot: those belong to
/// a network namespace, so the command's fresh one hides them all.
enum OutsideSockets {
    /// The paths of all sockets that programs of this network namespace have bound, and of those that lie where
    /// sockets usually do, whoever bound them. Sorted, each once.
    static func paths() -> [String] {
        var paths = Set(bound(in: FileSystem.contents(of: "/proc/thread-self/net/unix")))
        paths.formUnion(below("/tmp", depth: 2))
        paths.formUnion(below("/var/tmp", depth: 2))
        paths.formUnion(below("/dev", depth: 1))
        return paths.filter { FileSystem.kind(of: $0) == .socket }.sorted()
    }

    /// The absolute paths in the kernel's table of Unix sockets: after seven columns, to the end of the line.
    static func bound(in table: [UInt8]) -> [String] {
        table.split(separator: UInt8(ascii: "\n")).compactMap { line in
            let columns = line.split(separator: UInt8(ascii: " "), maxSplits: 7, omittingEmptySubsequences: true)
            guard columns.count == 8, columns[7].first == UInt8(ascii: "/") else { return nil }
            return String(decoding: columns[7], as: UTF8.self)
        }
    }

    /// The sockets in a directory and `depth` - 1 levels below it.
    static func below(_ directory: String, depth: Int) -> [String] {
        var found: [String] = []
        for (name, kind) in FileSystem.entries(in: directory) {
            let path = "\(directory)/\(name)"
            switch kind {
            case .socket: found.append(path)
            case .directory where depth > 1: found += below(path, depth: depth - 1)
            default: break
            }
        }
        return found
    }
}
