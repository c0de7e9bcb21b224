import Datapath
import Namespaces
import NetPrimitives
import PolicyDocument
import Synchronization

/// The threads that carry a node's traffic: some that sandboxes share, and one for each sandbox whose sockets to the outside
/// are opened in its own network.
///
///     shared     any number of sandboxes; the thread lives in the node's network, and so do its sockets to the outside
///     own        one sandbox; the thread lives in the sandbox's network, and its sockets have an ``UpstreamPass``
final class DataLoops: Sendable {
    private struct State {
        var own: [ObjectIdentifier: DataLoop] = [:]
        /// How many are about to be among those.
        var opening = 0
        var next = 0
        /// What those have counted that have ended.
        var past = LatencyCounts()
    }

    /// Those that sandboxes share.
    let shared: [DataLoop]
    /// The most that are not shared: a process that cannot start a thread ends, and what it can do for others ends with it.
    private let maximumOwn: Int
    private let servers: [Endpoint]
    private let timeoutMilliseconds: Int
    private let outlet: RecordOutlet
    private let state = Mutex(State())

    /// Starts the threads that are shared.
    init(_ configuration: NodeConfiguration, outlet: RecordOutlet) throws {
        (servers, timeoutMilliseconds) = (configuration.upstreamServers, configuration.upstreamTimeoutMilliseconds)
        self.outlet = outlet
        maximumOwn = configuration.maximumUpstreamInside
        shared = try (0..<max(configuration.loops, 1)).map { _ in
            try DataLoop(
                servers: configuration.upstreamServers,
                timeoutMilliseconds: configuration.upstreamTimeoutMilliseconds,
                outlet: outlet
            )
        }
    }

    /// All of them, as they are now.
    var all: [DataLoop] { shared + state.withLock { Array($0.own.values) } }

    /// What those have counted that have ended.
    var pastLatencies: LatencyCounts { state.withLock { $0.past } }

    /// One of those that are shared, in turn.
    func next() -> DataLoop {
        state.withLock { state in
            defer { state.next += 1 }
            return shared[state.next % shared.count]
        }
    }

    /// Starts one that lives in `namespace`; blocks for a moment. It is to be ended by ``end(_:)``.
    func open(
        in namespace: NetworkNamespace,
        _ upstream: CreateRequest.UpstreamInside,
        pass: UpstreamPass
    ) throws -> DataLoop {
        guard maximumOwn > 0 else {
            throw NodeError.unprocessable(
                field: "attachment.upstreamInside",
                "the operator of this node does not allow it (maximumUpstreamInside: 0)"
            )
        }
        let isRoom = state.withLock { state in
            guard state.own.count + state.opening < maximumOwn else { return false }
            state.opening += 1
            return true
        }
        guard isRoom else {
            throw NodeError.failed("\(maximumOwn) sandboxes connect from inside, which is the node's limit")
        }
        defer { state.withLock { $0.opening -= 1 } }
        let servers = upstream.nameservers.isEmpty ? servers : upstream.nameservers
        if let server = servers.first(where: \.address.isLoopback) {
            throw NodeError.unprocessable(
                field: "attachment.upstreamInside",
                "the daemon's DNS server \(server) is not reached from another network, where the sandbox could answer in its "
                    + "name: say nameservers"
            )
        }
        let domains = upstream.asksDocker ? upstream.dockerDomains : nil
        let loop = try DataLoop(
            servers: servers,
            timeoutMilliseconds: timeoutMilliseconds,
            upstreamPass: pass,
            in: namespace,
            localNames: try domains.map { try EmbeddedResolver(in: namespace, domains: $0) },
            outlet: outlet
        )
        state.withLock { $0.own[ObjectIdentifier(loop)] = loop }
        return loop
    }

    /// Ends one that ``open(in:_:pass:)`` started, when nothing lives there any more. Returns when its thread has left.
    func end(_ loop: DataLoop) async {
        let counts = try? await loop.run { $0.measure().latencies }
        state.withLock { state in
            guard state.own.removeValue(forKey: ObjectIdentifier(loop)) != nil, let counts else { return }
            state.past.add(counts)
        }
        await loop.end()
    }
}
