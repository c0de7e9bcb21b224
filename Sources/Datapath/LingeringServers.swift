/// The servers of a sandbox that have not taken everything of connections that are over. Confined to the sandbox's event loop.
final class LingeringServers {
    private var servers: [ObjectIdentifier: LingeringServer] = [:]

    /// How many there are.
    var count: Int { servers.count }

    /// All there are.
    var all: [LingeringServer] { Array(servers.values) }

    /// Has it waited for.
    func add(_ server: LingeringServer) {
        servers[ObjectIdentifier(server)] = server
        server.start()
    }

    /// Does nothing when it is not kept here any more.
    func remove(_ server: LingeringServer) {
        servers[ObjectIdentifier(server)] = nil
    }

    /// Judges all of them again after a policy change.
    func reconsider() {
        for server in all { server.reconsider() }
    }
}
