import Namespaces
import Sandboxes

/// The network that a run makes for its command, with privilege or without.
enum RunNetwork {
    case privileged(SandboxNetwork)
    case rootless(RootlessNetwork)

    static func make(isRootless: Bool) throws -> RunNetwork {
        isRootless ? .rootless(try RootlessNetwork()) : .privileged(try SandboxNetwork.make())
    }

    /// The namespace that the command runs in.
    var namespace: NetworkNamespace {
        switch self {
        case .privileged(let network): network.namespace
        case .rootless(let network): network.namespace
        }
    }

    /// The user namespace that it belongs to, if that is not ours.
    var userNamespace: UserNamespace? {
        switch self {
        case .privileged: nil
        case .rootless(let network): network.userNamespace
        }
    }

    /// How the sandbox reaches it.
    var access: NamespaceAccess {
        switch self {
        case .privileged(let network): .threads(network.namespace)
        case .rootless(let network): .attendant(network)
        }
    }
}
