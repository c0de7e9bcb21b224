import Namespaces
public import NetPrimitives
public import Reactor

/// Follows the addresses of this machine, which a sandbox must not reach by accident.
public final class NodeAddressWatcher: EventSource {
    private let loop: EventLoop
    private let changes: NodeAddressChanges
    private let onChange: ([IPAddress]) -> Void

    /// `onChange` is called on the loop with all of the addresses.
    public init(loop: EventLoop, onChange: @escaping ([IPAddress]) -> Void) throws {
        self.loop = loop
        self.onChange = onChange
        changes = try NodeAddressChanges()
        super.init()
        try loop.register(self, descriptor: changes.descriptor, interest: .readable)
    }

    /// Watches no more.
    public func stop() {
        loop.deregister(self)
    }

    override public func handle(_ readiness: Readiness) {
        changes.take()
        // The kernel could not list them: what was known stays guarded, and connections to ourselves are noticed.
        if let addresses = try? nodeAddresses() { onChange(addresses) }
    }
}
