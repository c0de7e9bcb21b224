internal import FilePrimitives
internal import Glibc
internal import Namespaces

/// Unix sockets of the node that a command could reach through the file system, and through them the world outside: D-Bus,
/// container engines, agents, ssh's shared connections, databases, displays (threats.md T16).
///
/// A socket with a path can be reached from every network namespace. One with an abstract name cannot: those belong to
/// a network namespace, so the command's fresh one hides them all.
///
/// What a connection looks for is an inode, so the kernel is asked for the inodes, and then the file system for all of
/// their names: the one that a program bound may have been linked, renamed, or relative. Whatever else looks like a socket
/// on the way is hidden too. A walk has a bound, and what is known to exist and was not found is told of.
struct OutsideSockets {
    /// Where sockets usually are, and through how many directories of each group the walk always goes; about ten
    /// microseconds each.
    private static let usualPlaces: [(paths: [SystemString], limit: Int)] = [
        (paths: ["/tmp", "/var/tmp"], limit: 4_000),
        (paths: ["/home", "/mnt", "/opt", "/root", "/srv", "/var"], limit: 1_000),
    ]
    private static let ownLimit = 2_000
    /// How many more, anywhere, when a socket is missing, and for how long at most: on a disk that has to be read, a
    /// directory may take a hundred times as long.
    private static let longWalk = (limit: 30_000, time: Duration.seconds(10))

    /// The names to hide, sorted, each once.
    let paths: [SystemString]
    /// Those that exist and were not found, by the names that their programs gave them.
    let unplaced: [SystemString]

    /// Asks the kernel and looks around.
    /// - Parameters:
    ///   - renewed: directories that the command finds new, so that nothing in them matters.
    ///   - near: where the command works, and what its user owns.
    /// - Throws: when it cannot look for want of memory or descriptors.
    init(mounts: MountTable, renewed: [SystemString], near: [SystemString]) throws(ConfinementError) {
        let table = try SocketTable(mounts: mounts.mounts)
        var search = SocketSearch(mounts: mounts, renewed: renewed)
        search.lookAtMountPoints()
        for socket in table.sockets { for place in search.places(of: socket) { try search.look(around: place) } }
        for name in table.names { try search.look(around: name) }
        let ownPlaces = near.compactMap(RealPath.of).filter { $0 != "/" }
        try search.walk(ownPlaces, directories: Self.ownLimit)
        for (paths, limit) in Self.usualPlaces { try search.walk(paths.filter(search.isLocal), directories: limit) }
        var missing = table.sockets.filter { !search.hasPlaced($0) }
        if !missing.isEmpty {
            try search.walkOn(
                from: search.points(of: Set(missing.map(\.device))),
                directories: Self.longWalk.limit,
                until: .now + Self.longWalk.time
            )
            missing = search.isComplete ? [] : missing.filter { !search.hasPlaced($0) }
        }
        paths = search.paths
        unplaced = missing.map(\.name).sorted()
    }
}
