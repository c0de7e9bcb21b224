public import Datapath
public import EgressCore
public import EgressPolicy
public import NetPrimitives
import Nftables
public import Reactor
public import UpstreamDNS

/// A sandbox network under enforcement: the kernel's table, the sockets inside the namespace, and what serves them.
///
/// The order in which one is built is the promise it makes: first the closed door, then sockets, then redirects, then
/// the self-test; only what passed that is ready. Confined to its event loop, except for ``selfTest(completion:)``'s
/// probes, which are another thread's.
public final class Sandbox {
    /// What everything on the way out of the sandbox needs of it.
    public let attachment: Attachment

    private let access: NamespaceAccess
    private let table: SandboxTable
    private let recorder: Recorder
    private let resolver: DNSResolver
    private var dnsListeners: [DNSListener] = []
    private var proxyListeners: [ProxyListener] = []
    private var datagramListeners: [DatagramListener] = []
    private var refusals: RefusalReader?

    /// Where our listeners are inside every sandbox: above the usual `ip_local_port_range`, so that no program there
    /// gets one of these ports by chance.
    static let ports = ListenerPorts(dns: 64_053, proxy: 64_080, explicitProxy: 64_128, datagrams: 64_117)
    /// Where the explicit proxy listens, on 127.0.0.1 and ::1 inside every sandbox.
    public static var explicitProxyPort: UInt16 { ports.explicitProxy }

    /// Puts a namespace under enforcement. Nothing may run in it before ``selfTest(completion:)`` has succeeded.
    /// Throws with the door closed when a step fails.
    public init(
        id: String,
        loop: EventLoop,
        access: NamespaceAccess,
        policy: CompiledPolicy,
        upstream: UpstreamResolver,
        limits: Attachment.Limits = .init(),
        record: @escaping (AuditEvent) -> Void
    ) throws {
        let recorder = Recorder(sink: record)
        let inside = try access.open(ports: Self.ports)
        self.access = access
        self.table = inside.table
        self.recorder = recorder
        self.attachment = try Attachment(
            id: id,
            loop: loop,
            kernel: inside.table,
            policy: policy,
            limits: limits,
            record: recorder.record
        )
        self.resolver = DNSResolver(attachment: attachment, upstream: upstream)
        try serve(inside)
    }

    private func serve(_ inside: InsideSockets) throws {
        for family in inside.families {
            dnsListeners.append(
                try DNSListener(attachment: attachment, resolver: resolver, udp: family.dnsUDP, tcp: family.dnsTCP)
            )
            proxyListeners.append(
                try ProxyListener(
                    attachment,
                    descriptor: family.proxy,
                    family: family.family,
                    kind: .transparent
                )
            )
            proxyListeners.append(
                try ProxyListener(
                    attachment,
                    descriptor: family.explicitProxy,
                    family: family.family,
                    kind: .explicit
                )
            )
            datagramListeners.append(
                try DatagramListener(attachment, conntrack: inside.conntrack, descriptors: family.datagrams)
            )
        }
        refusals = try RefusalReader(attachment, log: inside.refusalLog)
        try inside.table.installRedirects()
    }

    /// Records something of the sandbox's life.
    public func record(_ kind: AuditEvent.Kind) {
        attachment.record(kind)
    }

    /// Guards the node's addresses as they are now.
    public func guardNode(at addresses: [IPAddress]) {
        attachment.guardNode(at: addresses)
    }

    /// Ends every connection and stops serving. The kernel's rules stay and lead nowhere, until the namespace is gone.
    public func stop() {
        refusals?.stop()
        attachment.stop()
        dnsListeners.forEach { $0.stop() }
        proxyListeners.forEach { $0.stop() }
        datagramListeners.forEach { $0.stop() }
        dnsListeners = []
        proxyListeners = []
        datagramListeners = []
        refusals = nil
    }
}

// MARK: - The self-test

extension Sandbox {
    /// Tries from inside whether the door is what it should be. `completion` is called on the loop, which must be
    /// running. What the probes leave behind is not recorded.
    public func selfTest(completion: @escaping (SelfTestFailure?) -> Void) {
        let probes = SelfTestProbes(refused: { [attachment] in attachment.refuses($0) })
        let run = SelfTestRun(loop: attachment.loop, probes: probes) { [weak self] failure in
            self?.recorder.probe = nil
            completion(failure)
        }
        recorder.probe = { run.observe($0) }
        run.start(access.attempt)
    }
}

/// Passes records on, except those that the self-test causes.
final class Recorder {
    /// Gets the records instead of the log while the self-test runs; nothing else runs in the sandbox then.
    var probe: ((AuditEvent) -> Void)?
    private let sink: (AuditEvent) -> Void

    init(sink: @escaping (AuditEvent) -> Void) {
        self.sink = sink
    }

    func record(_ event: AuditEvent) {
        if let probe { probe(event) } else { sink(event) }
    }
}
