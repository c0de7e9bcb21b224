import Datapath
import FilePrimitives
import Glibc
import Namespaces
import NetPrimitives
import Reactor
import UpstreamDNS

/// Docker's resolver in a user-defined network, which knows the other containers by their names: sockets of the engine's,
/// at 127.0.0.11 in the container's own namespace.
///
/// Who answers there decides which addresses are opened to the sandbox, whose programs may listen at such an address, and
/// send datagrams from it, as well. So this is one socket, of which a process outside was seen to be the owner; it is
/// asked over TCP, and what it answered counts if that socket listens still, whose place nobody else can have had then.
struct EmbeddedResolver: Sendable {
    private let socket: ListeningSocket
    private let domains: [DomainName]

    private static let address = IPAddress(v4: 0x7f00_000b)

    /// Finds it in `namespace`, to be asked of names of one label, and of `domains` with what is below them. Throws where no
    /// process outside listens there, or more than one socket.
    init(in namespace: NetworkNamespace, domains: [DomainName]) throws {
        self.domains = domains
        let sockets = try namespace.enter { try ListeningSocket.all(at: Self.address) }
        let owned = try Inhabitants.socketsHeldOutside(sockets.map(\.inode), of: namespace)
        let found = sockets.filter { owned.contains($0.inode) }
        guard found.count == 1 else {
            throw NodeError.unprocessable(
                field: "attachment.dockerNames",
                found.isEmpty
                    ? "no container engine answers at \(Self.address) in this network: it has to be a user-defined one"
                    : "\(found.count) sockets of processes outside listen at \(Self.address) in this network"
            )
        }
        socket = found[0]
    }

    /// What asks it, on a loop whose thread lives in the namespace. Once: a name that no container has the engine asks of
    /// servers outside, from this very network and so of our own resolver, where it waits for the same answer.
    func names(on loop: EventLoop, timeoutMilliseconds: Int) throws(UpstreamError) -> LocalNames {
        let resolver = try UpstreamResolver(
            loop: loop,
            servers: [socket.endpoint],
            timeoutMilliseconds: timeoutMilliseconds,
            tries: 1,
            usesTCPAlone: true,
            accepts: { [socket] in socket.listensStill }
        )
        return LocalNames(resolver: resolver, domains: domains)
    }
}
