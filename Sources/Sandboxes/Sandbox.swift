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

    /// Tries the self-test's probes; let go of when it has, for it may hold the namespace.
    private var attempt: SelfTestProbes.Attempt?
    private let table: SandboxTable
    private let recorder: Recorder
    private let resolver: DNSResolver
    private var dnsListeners: [DNSListener] = []
    private var proxyListeners: [ProxyListener] = []
    private var datagramListeners: [DatagramListener] = []
    private var refusals: RefusalReader?

    /// Where our listeners are inside every sandbox: above the usual `ip_local_port_range`, so that no program there
    /// gets one of these ports by chance.
    static let ports = ListenerPorts(dns: 64_053, proxy: 64_128, datagrams: 64_117)
    /// Where the proxy listens, on 127.0.0.1 and ::1 inside every sandbox.
    public static var proxyPort: UInt16 { ports.proxy }

    /// Puts a namespace under enforcement. Nothing may run in it before ``selfTest(completion:)`` has succeeded.
    /// Throws with the door closed when a step fails.
    public convenience init(
        id: String,
        loop: EventLoop,
        access: NamespaceAccess,
        policy: CompiledPolicy,
        upstream: UpstreamResolver,
        limits: Attachment.Limits = .init(),
        isAsking: Bool = false,
        record: @escaping (AuditEvent) -> Void
    ) throws {
        try self.init(
            id: id,
            loop: loop,
            inside: try access.open(ports: Self.ports, refusals: limits.refusals),
            attempt: access.attempt,
            policy: policy,
            upstream: upstream,
            limits: limits,
            isAsking: isAsking,
            record: record
        )
    }

    /// Serves a namespace in which the door is closed and the sockets are open. Opens the door, unless it `isPaused`.
    init(
        id: String,
        loop: EventLoop,
        inside: InsideSockets,
        attempt: @escaping SelfTestProbes.Attempt,
        policy: CompiledPolicy,
        upstream: UpstreamResolver,
        localNames: LocalNames? = nil,
        isPaused: Bool = false,
        limits: Attachment.Limits = .init(),
        isAsking: Bool = false,
        latencies: LatencyMeter = LatencyMeter(),
        record: @escaping (AuditEvent) -> Void
    ) throws {
        let recorder = Recorder(sink: record)
        self.attempt = attempt
        self.table = inside.table
        self.recorder = recorder
        do {
            self.attachment = try Attachment(
                id: id,
                loop: loop,
                kernel: inside.table,
                policy: policy,
                pins: inside.pins,
                limits: limits,
                isAsking: isAsking,
                latencies: latencies,
                record: recorder.record
            )
        } catch {
            inside.abandon()
            throw error
        }
        self.resolver = DNSResolver(attachment: attachment, upstream: upstream, localNames: localNames)
        do {
            try serve(inside)
            try attachment.open(isPaused: isPaused)
        } catch {
            // Listeners that outlive this object would have nobody to ask.
            shut()
            throw error
        }
        // Otherwise the self-test comes first, which waits for records.
        if isPaused { refusals?.collect() }
    }

    /// Puts listeners behind the sockets; on an error all of them are closed.
    private func serve(_ inside: InsideSockets) throws {
        var unserved = inside.listeners[...]
        var datagrams = inside.datagrams
        do {
            for family in inside.families {
                dnsListeners.append(
                    try DNSListener(attachment: attachment, resolver: resolver, udp: family.dnsUDP, tcp: family.dnsTCP)
                )
                unserved = unserved.dropFirst(2)
                proxyListeners.append(try ProxyListener(attachment, descriptor: family.proxy, family: family.family))
                unserved = unserved.dropFirst()
            }
            if let sockets = datagrams {
                datagrams = nil
                try serve(sockets)
            }
            refusals = try RefusalReader(attachment, log: inside.refusalLog)
        } catch {
            stop()
            unserved.forEach(Sockets.close)
            datagrams?.close()
            throw error
        }
    }

    /// Whether somebody is behind the relay for datagrams. Without, the kernel refuses what is redirected to it.
    var servesDatagrams: Bool { !datagramListeners.isEmpty }

    /// Puts listeners behind the relay's sockets; on an error all of them are closed.
    func serve(_ sockets: DatagramSockets) throws {
        var unserved = sockets.descriptors[...]
        do {
            while let descriptors = unserved.first {
                datagramListeners.append(
                    try DatagramListener(attachment, conntrack: sockets.conntrack, descriptors: descriptors)
                )
                unserved = unserved.dropFirst()
            }
        } catch {
            unserved.forEach { $0.close() }
            throw error
        }
    }

    /// Calls `closed` when somebody else changed the rules in the sandbox's namespace, since when everything is denied for
    /// good. Throws that at once if it happened already.
    public func onRulesetChange(_ closed: @escaping (any Error) -> Void) throws {
        if let change = attachment.rulesetChange { throw change }
        attachment.onRulesetChange = closed
    }

    /// Ends the policy's set-up phase for good: its rules are gone when this returns, and with them what they alone
    /// allowed. `cause` says in the record why.
    public func lock(_ cause: String) {
        attachment.lock(generation: attachment.policy.generation + 1)
        attachment.record(.sandboxLocked, detail: cause)
    }

    /// Calls `ended` when the set-up phase has come to its end by time, its rules being gone already.
    public func onSetupEnd(_ ended: @escaping () -> Void) {
        attachment.onSetupEnd = ended
    }

    /// Records something of the sandbox's life.
    public func record(_ kind: AuditEvent.Kind) {
        attachment.record(kind)
    }

    /// Removes the rules: from now on nothing is enforced. After ``stop()``, for a namespace that goes on without us.
    func release() throws(NetlinkError) {
        try table.delete()
    }

    /// Ends every connection, closes the door and stops serving.
    func shut() {
        // Where the kernel would not, the redirects lead nowhere: refused all the same, with an error less clear.
        try? table.pause()
        stop()
    }

    /// Guards the node's addresses as they are now.
    public func guardNode(at addresses: [IPAddress]) {
        attachment.guardNode(at: addresses)
    }

    /// Whether nothing is under way: no connection lives, what those sent that are over has arrived, and no query waits for
    /// its answer.
    public var isQuiet: Bool { attachment.connectionCount == 0 && attachment.isDelivered && resolver.isQuiet }

    /// Leaves to the kernel what servers have not taken of connections that are over. For the end of a command, whose policy
    /// held until then.
    public func leaveLingering() { attachment.leaveLingering() }

    /// Records what the kernel refused before this call. For the end, when nobody is in the namespace any more.
    public func finishRefusals() {
        refusals?.finish()
    }

    /// Stops serving, and gives up what another process can go on with. The kernel's rules stay, and what they redirect
    /// waits in the listeners.
    func handOver() -> HandedSandbox {
        var handed = HandedSandbox(families: [])
        for (number, (dns, proxy)) in zip(dnsListeners, proxyListeners).enumerated() {
            guard let (udp, tcp, queries) = dns.handOver() else { continue }
            guard let listener = proxy.handOver() else {
                [udp, tcp].forEach(Sockets.close)
                continue
            }
            handed.families.append(.init(family: proxy.family, dnsUDP: udp, dnsTCP: tcp, proxy: listener))
            handed.queries += queries.map { (number, $0) }
        }
        handed.tunnels = attachment.handOver()
        stop()
        return handed
    }

    /// Goes on with the queries and connections that another process had.
    func takeOver(_ handed: HandedSandbox) {
        for (family, query) in handed.queries where dnsListeners.indices.contains(family) {
            dnsListeners[family].takeOver(query)
        }
        handed.tunnels.forEach(attachment.takeOver)
    }

    /// Ends every connection and stops serving. The kernel's rules stay and lead nowhere, until the namespace is gone.
    public func stop() {
        refusals?.stop()
        dnsListeners.forEach { $0.stop() }
        attachment.stop()
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
    /// running. What the probes cause is not recorded; what others do meanwhile is.
    public func selfTest(completion: @escaping (SelfTestFailure?) -> Void) {
        selfTest(toleratesMissingRoutes: false, completion: completion)
    }

    /// ``selfTest(completion:)`` for a network that may have no route for a family, and on a node whose API is served at
    /// `control`.
    func selfTest(
        toleratesMissingRoutes: Bool,
        control: [Endpoint] = [],
        completion: @escaping (SelfTestFailure?) -> Void
    ) {
        var probes = SelfTestProbes(
            refused: { [attachment] in attachment.refuses($0) },
            deniesName: resolver.denies(SelfTestProbes.name),
            control: control
        )
        probes.toleratesMissingRoutes = toleratesMissingRoutes
        let run = SelfTestRun(loop: attachment.loop, probes: probes) { [weak self] failure in
            self?.recorder.probe = nil
            self?.refusals?.collect()
            completion(failure)
        }
        recorder.probe = { run.observe($0) }
        guard let attempt else { preconditionFailure("a sandbox is tested once") }
        self.attempt = nil
        run.start(attempt)
    }
}

/// Passes records on, except those that the self-test causes.
final class Recorder {
    /// Sees the records first while the self-test runs; says whether it caused one, which is then kept out of the log.
    var probe: ((AuditEvent) -> Bool)?
    private let sink: (AuditEvent) -> Void

    init(sink: @escaping (AuditEvent) -> Void) {
        self.sink = sink
    }

    func record(_ event: AuditEvent) {
        if let probe, probe(event) { return }
        sink(event)
    }
}
