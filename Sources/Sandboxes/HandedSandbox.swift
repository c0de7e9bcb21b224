import Datapath
import NetPrimitives
import Reactor

/// What serves a sandbox, on its way from one process to the next: see ``Sandbox/handOver()``. Whoever has it goes on with
/// it or closes it.
struct HandedSandbox: Sendable {
    /// For each address family, the listeners.
    var families: [InsideSockets.Family]
    /// Queries that wait for an answer; the number of the family whose listener got them.
    var queries: [(family: Int, query: HandedQuery)] = []
    /// What the connections' sockets to the outside have, where those are in the sandbox's namespace.
    var pass: UpstreamPass?
    /// Connections that go on.
    var tunnels: [HandedTunnel] = []

    /// Every descriptor.
    var descriptors: [CInt] { families.flatMap(\.descriptors) + tunnels.flatMap(\.descriptors) }

    /// Closes all of it, when nobody goes on with it: connections are reset.
    func close() {
        families.flatMap(\.descriptors).forEach(Sockets.close)
        tunnels.forEach { $0.close() }
    }
}
