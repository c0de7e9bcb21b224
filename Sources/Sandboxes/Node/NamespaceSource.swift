import FilePrimitives
import Glibc
import Namespaces
import NetPrimitives
import PolicyDocument
import Reactor
import Synchronization

/// Finds or makes the network namespaces that sandboxes live in. All of it may block for a moment.
final class NamespaceSource: Sendable {
    /// Where namespaces that the node makes are mounted, by the sandbox's id.
    let directory: String
    /// Asks the container runtime.
    let containers: ContainerRuntime
    /// This boot of the machine.
    let bootID: String
    private let makingDeadEnd = Mutex(())

    private static let deadEnd = ".dead-end"

    /// A source that mounts in `directory`, which is made if need be.
    init(directory: String, containers: ContainerRuntime) throws {
        self.directory = directory
        self.containers = containers
        bootID = try Self.currentBootID()
        try StateDirectory.make(directory)
    }

    /// Finds what an attachment names, or makes it for the sandbox `id`.
    func open(_ attachment: CreateRequest.Attachment, id: String) throws -> (NetworkNamespace, NamespaceReference) {
        let path: String
        switch attachment {
        case .create: path = try make(for: id)
        case .netns(let given): path = given
        case .pid(let pid): path = "/proc/\(pid)/ns/net"
        case .container(let name): path = "/proc/\(try containers.process(of: name))/ns/net"
        }
        do {
            let namespace = try openNetwork(path)
            return (namespace, NamespaceReference(path: path, inode: namespace.identifier, bootID: bootID))
        } catch {
            throw NodeError.unprocessable(field: "attachment", "\(error)")
        }
    }

    /// Opens a namespace again; `nil` when it is gone. Throws when that cannot be said: for want of descriptors, say.
    func reopen(_ reference: NamespaceReference) throws(NamespaceError) -> NetworkNamespace? {
        guard reference.bootID == bootID else { return nil }
        do {
            let namespace = try NetworkNamespace.open(path: SystemString(reference.path))
            // Somebody may have put another namespace there, or a file; or run this node inside.
            guard namespace.isNetwork, namespace.identifier == reference.inode,
                namespace.identifier != (try NetworkNamespace.current()).identifier
            else { return nil }
            return namespace
        } catch  where [ENOENT, ENOTDIR, ESRCH].contains(error.errno) {
            return nil
        }
    }

    /// Takes away what ``open(_:id:)`` made for a sandbox.
    func remove(_ id: String) throws {
        try NetworkNamespace.unmount(path(for: id))
    }

    private func path(for id: String) -> String { "\(directory)/\(id)" }

    private func openNetwork(_ path: String) throws(NamespaceError) -> NetworkNamespace {
        let namespace = try NetworkNamespace.open(path: SystemString(path))
        guard namespace.isNetwork else { throw NamespaceError("\(path) is no network namespace", errno: EINVAL) }
        guard namespace.identifier != (try NetworkNamespace.current()).identifier else {
            throw NamespaceError("\(path) is the node's own network namespace", errno: EBUSY)
        }
        return namespace
    }

    /// A network that leads nowhere, mounted so that it outlives this process.
    private func make(for id: String) throws -> String {
        let path = path(for: id)
        // Of a sandbox that was never acknowledged.
        try NetworkNamespace.unmount(path)
        let deadEnd = try deadEnd()
        let device = "sg" + String(UInt64.random(in: 0..<(1 << 40)), radix: 32)
        let network = try SandboxNetwork.make(endingIn: deadEnd, deadEndDevice: device)
        try network.namespace.mount(at: path)
        return path
    }

    /// The namespace in which all of these networks end, made with the first.
    private func deadEnd() throws -> NetworkNamespace {
        try makingDeadEnd.withLock { _ in
            let path = "\(directory)/\(Self.deadEnd)"
            if let found = try openIfMounted(path) { return found }
            try NetworkNamespace.unmount(path)
            let made = try SandboxNetwork.makeDeadEnd()
            try made.mount(at: path)
            return made
        }
    }

    /// `nil` when nothing is there, or a file that is left of a boot before this one. Throws when that cannot be said: what
    /// cannot be opened for want of descriptors is there, and the networks of all sandboxes would go with it.
    private func openIfMounted(_ path: String) throws(NamespaceError) -> NetworkNamespace? {
        do {
            return try openNetwork(path)
        } catch  where [ENOENT, EINVAL].contains(error.errno) {
            return nil
        }
    }

    private static func currentBootID() throws(SystemError) -> String {
        let path = "/proc/sys/kernel/random/boot_id"
        let file = Glibc.open(path, O_RDONLY | O_CLOEXEC)
        guard file >= 0 else { throw .current("open", path) }
        defer { close(file) }
        var bytes = [UInt8](repeating: 0, count: 64)
        let count = read(file, &bytes, bytes.count)
        guard count > 0 else { throw .current("read", path) }
        return String(decoding: bytes.prefix(count).filter { $0 > 0x20 }, as: UTF8.self)
    }
}
