import Namespaces
import NetPrimitives
import Reactor

/// Follows the addresses of this machine, which a sandbox must not reach by accident.
final class NodeAddressWatcher {
    private let loop: EventLoop
    private let changes: NodeAddressChanges
    private let watcher = DescriptorWatcher()

    /// `onChange` is called on the loop with all of the addresses.
    init(loop: EventLoop, onChange: @escaping ([IPAddress]) -> Void) throws {
        self.loop = loop
        changes = try NodeAddressChanges()
        watcher.onReadable = { [changes] _ in
            changes.take()
            // The kernel could not list them: what was known stays guarded, and connections to ourselves are noticed.
            if let addresses = try? nodeAddresses() { onChange(addresses) }
        }
        try loop.register(watcher, descriptor: changes.descriptor, interest: .readable)
    }

    /// Watches no more.
    func stop() {
        loop.deregister(watcher)
    }
}
