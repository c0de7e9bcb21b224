internal import FilePrimitives
internal import Glibc

/// What paths lead to, and everything on the way that decides it.
struct FileTrail {
    /// A symbolic link, and where it leads as it is written.
    struct Link: Hashable {
        let path: String
        let destination: String
    }

    /// How many links one path may go through, as in the kernel (MAXSYMLINKS).
    private static let maximumLinks = 40
    /// How many entries of a directory are looked at, with everything below it.
    private static let capacity = 2_000

    /// What exists, without symbolic links.
    private(set) var existing: Set<String> = []
    /// Every link on the way.
    private(set) var links: Set<Link> = []
    /// Where a path ends because nothing is there.
    private(set) var missing: Set<String> = []
    /// Files that this user can write and that have more names than one.
    private(set) var withOtherNames: Set<String> = []

    /// Walks along `path`, absolute, name by name.
    mutating func follow(_ path: String) {
        var names = Array(path.split(separator: "/").map(String.init).reversed())
        var place = ""
        var followed = 0
        while let name = names.popLast() {
            if name == "." { continue }
            if name == ".." {
                place = place.lastIndex(of: "/").map { String(place[..<$0]) } ?? ""
                continue
            }
            let next = "\(place)/\(name)"
            guard let kind = FileSystem.kind(of: next) else {
                missing.insert(names.reversed().reduce(next) { "\($0)/\($1)" })
                return
            }
            guard kind == .link, let destination = FileSystem.destination(of: next) else {
                place = next
                continue
            }
            // A link that this user cannot replace stays as it is.
            if access(place.isEmpty ? "/" : place, W_OK) == 0 {
                links.insert(Link(path: next, destination: destination))
            }
            followed += 1
            guard followed <= Self.maximumLinks else { return }
            if destination.hasPrefix("/") { place = "" }
            names += destination.split(separator: "/").map(String.init).reversed()
        }
        if !place.isEmpty { existing.insert(place) }
    }

    /// Follows the links in directories that exist: `.ssh/authorized_keys` may lead to where anybody writes. Those that
    /// lead to what this user can neither write nor replace are left alone.
    /// - Throws: when a directory that may be listed cannot be.
    mutating func followLinksInside() throws(ConfinementError) {
        var queue = existing.sorted()
        while let path = queue.popLast() {
            var left = Self.capacity
            let known = existing
            try look(into: path, &left)
            queue += existing.subtracting(known).sorted()
        }
    }

    private mutating func look(into path: String, _ left: inout Int) throws(ConfinementError) {
        switch FileSystem.kind(of: path) {
        case .directory:
            for (name, _) in try FileSystem.entriesIfAllowed(in: path) where left > 0 {
                left -= 1
                try look(into: "\(path)/\(name)", &left)
            }
        case .link:
            guard let target = RealPath.of(path) else { return follow(path) }
            let parent = String(target[..<target.lastIndex(of: "/")!])
            let isProtected = existing.contains { FileSystem.isBelow(target, $0) }
            if !isProtected, access(target, W_OK) == 0 || access(parent.isEmpty ? "/" : parent, W_OK) == 0 {
                follow(path)
            }
        case .file:
            if FileSystem.links(to: path) > 1, access(path, W_OK) == 0 { withOtherNames.insert(path) }
        case .socket, .other, nil: break
        }
    }
}
