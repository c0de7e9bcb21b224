public import Namespaces
import Nftables

/// How a sandbox's network namespace is reached.
public enum NamespaceAccess {
    /// By threads of this process, which needs CAP_SYS_ADMIN for it.
    case threads(NetworkNamespace)
    /// By another process; this one needs no privilege.
    case attendant(RootlessNetwork)

    /// Closes the door and opens what serves the sandbox; once.
    func open(ports: ListenerPorts, refusals: RefusalLimit) throws -> InsideSockets {
        switch self {
        case .threads(let namespace): try InsideSockets(in: namespace, ports: ports, refusals: refusals)
        case .attendant(let network): try network.open(ports: ports, refusals: refusals)
        }
    }

    /// What tries the self-test's probes.
    var attempt: SelfTestProbes.Attempt {
        switch self {
        case .threads(let namespace): { probes in try namespace.enter { try probes.probe() } }
        case .attendant(let network): network.attempt
        }
    }
}
