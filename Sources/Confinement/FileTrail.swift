internal import FilePrimitives
internal import Glibc

/// What paths lead to, and everything on the way that decides it.
struct FileTrail {
    /// A symbolic link, and where it leads as it is written.
    struct Link: Hashable {
        let path: SystemString
        let destination: SystemString
    }

    /// How many links one path may go through, as in the kernel (MAXSYMLINKS).
    private static let maximumLinks = 40
    /// How many entries of a directory are looked at, with everything below it.
    private static let capacity = 2_000

    /// What exists, without symbolic links.
    private(set) var existing: Set<SystemString> = []
    /// Every link on the way.
    private(set) var links: Set<Link> = []
    /// Where a path ends because nothing is there.
    private(set) var missing: Set<SystemString> = []
    /// Files that this user can write and that have more names than one.
    private(set) var withOtherNames: Set<SystemString> = []

    /// Walks along `path`, absolute, name by name.
    mutating func follow(_ path: SystemString) {
        var names = Array(path.components.reversed())
        var place: SystemString = ""
        var followed = 0
        while let name = names.popLast() {
            if name == "." { continue }
            if name == ".." {
                place = place.parent ?? ""
                continue
            }
            let next: SystemString = "\(place)/\(name)"
            guard let kind = FileSystem.kind(of: next) else {
                missing.insert(names.reversed().reduce(next) { "\($0)/\($1)" as SystemString })
                return
            }
            guard kind == .link, let destination = FileSystem.destination(of: next) else {
                place = next
                continue
            }
            // A link that this user cannot replace stays as it is.
            if FileSystem.allows(place.isEmpty ? "/" : place, W_OK) {
                links.insert(Link(path: next, destination: destination))
            }
            followed += 1
            guard followed <= Self.maximumLinks else { return }
            if destination.hasPrefix("/") { place = "" }
            names += destination.components.reversed()
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

    private mutating func look(into path: SystemString, _ left: inout Int) throws(ConfinementError) {
        switch FileSystem.kind(of: path) {
        case .directory:
            for (name, _) in try FileSystem.entriesIfAllowed(in: path) where left > 0 {
                left -= 1
                try look(into: "\(path)/\(name)", &left)
            }
        case .link:
            guard let target = RealPath.of(path) else { return follow(path) }
            let parent = target.parent ?? ""
            let mayBeChanged =
                FileSystem.allows(target, W_OK) || FileSystem.allows(parent.isEmpty ? "/" : parent, W_OK)
            if mayBeChanged, !existing.contains(where: target.isBelow) { follow(path) }
        case .file:
            if FileSystem.links(to: path) > 1, FileSystem.allows(path, W_OK) { withOtherNames.insert(path) }
        case .socket, .other, nil: break
        }
    }
}
