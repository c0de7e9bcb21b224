public import Datapath
import EgressCore
public import EgressPolicy
import Glibc
import Namespaces
public import NetPrimitives
import Nftables
import PolicyDocument
import Reactor

/// One sandbox network under enforcement from within: this process lives in the network namespace that it guards, as
/// OpenSandbox's egress container does.
///
/// Its own way out is told by an ``UpstreamPass`` and a conntrack zone; everything else is as for other sandboxes. The
/// rules stay when the process ends, and a process after it takes them over.
public actor Sidecar {
    /// What a sidecar is made with.
    public struct Configuration: Sendable {
        /// The sandbox's name in records.
        public var id = "sandbox"
        /// The policy to begin with; `nil` denies everything.
        public var policy: Policy?
        /// Before every policy.
        public var always = AlwaysRules()
        /// Where the policy is kept from one process to the next; `nil` where it is not.
        public var policyFile: String?
        /// Where the key of the network is kept (``NetworkKey``): a directory that is there from one process to the next, and
        /// no sandbox's.
        public var keyDirectory = "/var/log/sandgate"
        /// The DNS servers that are asked, in this order.
        public var upstreamServers: [Endpoint] = []
        /// How long a server may take to answer, in milliseconds.
        public var upstreamTimeoutMilliseconds = 5_000
        /// Whether what is in the network already may be there though it could take packets past the rules.
        public var acceptsSidePaths = false
        /// Bounds on what the sandbox can take.
        public var limits = Attachment.Limits()

        /// The defaults.
        public init() {}
    }

    /// The policy in force; `nil` when it was reset, or never set: everything is denied.
    public private(set) var policy: Policy?
    /// The policy's revision, from 1.
    public private(set) var revision: UInt64 = 1
    /// Why everything is denied, whatever the policy; `nil` while all is well.
    public private(set) var problem: String?
    private let configuration: Configuration
    private var always: AlwaysRules
    private let loop: DataLoop
    private let pass = UpstreamPass.random()
    private let fencePass = UpstreamPass.random()
    /// Stands as long as its socket is open, and longer.
    private var fence: Transferred<EgressFence>?
    private var isBusy = false
    private var waiting: [CheckedContinuation<Void, Never>] = []

    /// Starts the thread. What is recorded goes to `outlet`, in that thread.
    public init(_ configuration: Configuration, outlet: RecordOutlet) throws {
        self.configuration = configuration
        policy = configuration.policy
        always = configuration.always
        loop = try DataLoop(
            servers: configuration.upstreamServers,
            timeoutMilliseconds: configuration.upstreamTimeoutMilliseconds,
            upstreamPass: pass,
            outlet: outlet
        )
    }

    /// Puts the namespace under enforcement: door closed, listeners, redirects, self-test. Throws with the door closed.
    public func begin() async throws {
        let (id, limits, pass, fencePass) = (configuration.id, configuration.limits, pass, fencePass)
        let compiled = try compile(policy)
        if !configuration.acceptsSidePaths { try await Self.refuseSidePaths() }
        let key = try await Blocking.run { [configuration] in try NetworkKey.kept(in: configuration.keyDirectory) }
        let notes = configuration.upstreamServers.prefix(Self.notedServers).map(\.description) + [key.note]
        let (inside, fence): (Transferred<InsideSockets>, Transferred<EgressFence>?) = try await Keeper.run {
            // What a table has that is not ours is nobody's word: neither pins nor flows.
            let isOurs = try SandboxTable.notes(try NetlinkSocket()).contains(key.note)
            let inside = try InsideSockets.open(
                ports: Sandbox.ports,
                refusals: limits.refusals,
                inheritance: isOurs ? .pins : .rules,
                gateways: [],
                onLink: try onLinkPrefixes(),
                needsIPv6: false,
                opensUDP: true,
                upstream: pass,
                fence: fencePass,
                notes: notes
            )
            do {
                try inside.table.setServedPorts([PortRange.all])
                let devices = outerDevices()
                guard !devices.isEmpty else { return (Transferred(inside), nil) }
                let netlink = try NetlinkSocket()
                try inside.refusalLog.trust(netlink)
                let fence = EgressFence(netlink: netlink, devices: devices, pass: fencePass)
                try fence.install()
                return (Transferred(inside), Transferred(fence))
            } catch {
                inside.abandon()
                throw error
            }
        }
        self.fence = fence
        try await loop.run { residents in
            residents[id] = try Sandbox(
                id: id,
                loop: residents.loop,
                inside: inside.value,
                attempt: { try $0.probe() },
                policy: compiled,
                upstream: residents.upstream,
                limits: limits,
                record: residents.record
            )
        }
        let failure: SelfTestFailure? = try await loop.run { residents, completion in
            guard let sandbox = residents[id] else { return completion(.cannotProbe("the sandbox has gone")) }
            sandbox.selfTest(toleratesMissingRoutes: true, completion: completion)
        }
        if let failure {
            try? await loop.run { $0[id]?.shut() }
            throw failure
        }
        try await loop.run { residents in
            try residents[id]?.onRulesetChange { [weak self] change in
                Keeper.deliver { [weak self] in Task { await self?.isClosed(because: change) } }
            }
        }
        try await loop.run { $0[id]?.record(.sandboxAttached) }
    }

    /// What somebody left in the network who could change it before.
    public struct SidePathError: Error, CustomStringConvertible {
        /// One clause: what it is, and what takes it away.
        public let description: String
    }

    private static func refuseSidePaths() async throws {
        // Without CAP_SYS_ADMIN containers may not ask for BPF programs.
        let ways = SideWays(hasUpstreamInside: true, needsPrograms: false, hasFence: true)
        let found = try await Keeper.run { try ways.find() }
        let consent = "SANDGATE_ACCEPT_SIDE_PATHS=true"
        if let why = SidePath.refusal(of: found, in: "this network", consent: consent) {
            throw SidePathError(description: why)
        }
    }

    /// So many servers are noted; nobody has more.
    private static let notedServers = 32

    /// What the process before this one noted.
    public struct Predecessor: Sendable {
        /// The DNS servers that it asked; none where it noted nothing.
        public let servers: [Endpoint]
        /// Whether it was one with our key, and not somebody who could change the network before there was a sidecar.
        public let isKnown: Bool
    }

    /// What was noted by the process that guarded the calling thread's network before. It stands in the kernel's rules, out of
    /// the sandbox's reach. What the system is configured with is not: a container shares /etc/resolv.conf with whoever joins
    /// its network, or its pod, who may write it.
    public static func predecessor(key: NetworkKey?) throws -> Predecessor {
        let notes = try SandboxTable.notes(try NetlinkSocket())
        return Predecessor(
            servers: notes.compactMap { Endpoint(parsing: $0, defaultPort: 53) },
            isKnown: key.map { notes.contains($0.note) } ?? false
        )
    }

    /// Ends every connection. The rules stay, and lead nowhere until the next process.
    public func stop() async {
        let id = configuration.id
        try? await loop.run { $0[id]?.stop() }
        // Behind the records of it.
        try? await loop.run { _ in }
    }

    private func isClosed(because change: any Error) {
        problem = "somebody else changed the rules, and everything is denied for good: \(change)"
    }

    private func compile(_ policy: Policy?) throws -> CompiledPolicy {
        CompiledPolicy(
            policy ?? Policy(),
            always: always,
            nodeAddresses: try nodeAddresses(),
            generation: revision
        )
    }
}

// MARK: - Ways out

extension Sidecar {
    /// How long connecting may take, in milliseconds.
    private static let connectMilliseconds: UInt64 = 5_000

    /// Connects to a server outside for the process itself, whatever the policy says: by the way that the sandbox's own
    /// traffic leaves, of which the sandbox gets nothing. `deny` are rules of the operator that hold all the same. Returns
    /// a connected non-blocking socket, which is the caller's to close.
    public func connect(to host: String, port: UInt16, deny: [Rule]) async throws -> CInt {
        let target = OutsideConnection.Target(
            host: host,
            port: port,
            deny: deny,
            timeoutMilliseconds: Self.connectMilliseconds
        )
        let result: Result<CInt, OutsideConnection.Failure> = try await loop.run { residents, completion in
            _ = OutsideConnection(target, loop: residents.loop, upstream: residents.upstream, completion: completion)
        }
        return try result.get()
    }

    /// Whether no server that can be told anything is at `address`: this host, link-local addresses, those of
    /// many, and those of metadata services.
    public static func isNeverConnected(to address: IPAddress) -> Bool {
        OutsideConnection.isNeverDialled(address)
    }
}

// MARK: - Policy

extension Sidecar {
    /// What is done is done one after the other.
    private func exclusively<Output>(_ body: () async throws -> Output) async throws -> Output {
        if isBusy { await withCheckedContinuation { waiting.append($0) } }
        isBusy = true
        defer {
            if waiting.isEmpty { isBusy = false } else { waiting.removeFirst().resume() }
        }
        return try await body()
    }

    /// Changes the policy: first on the disk, where it is kept, then in the kernel. Where either refuses, the old one stays
    /// in force. `change` gets the policy in force, and returns `nil` for a reset.
    public func changePolicy(_ change: @Sendable (Policy?) throws -> Policy?) async throws -> Policy? {
        try await exclusively {
            let changed = try change(policy)
            let before = policy
            revision += 1
            do {
                try await keep(changed)
                try await enforce(changed)
            } catch {
                revision -= 1
                try? await keep(before)
                throw error
            }
            policy = changed
            return changed
        }
    }

    /// Puts other rules of the operator in force.
    public func changeAlways(_ changed: AlwaysRules) async throws {
        try await exclusively {
            guard changed != always else { return }
            let before = always
            always = changed
            do {
                try await enforce(policy)
            } catch {
                always = before
                try? await enforce(policy)
                throw error
            }
        }
    }

    private func enforce(_ policy: Policy?) async throws {
        let id = configuration.id
        let compiled = try compile(policy)
        try await loop.run { residents in try residents[id]?.attachment.replacePolicy(with: compiled) }
    }

    private func keep(_ policy: Policy?) async throws {
        guard let path = configuration.policyFile else { return }
        do {
            try await Blocking.run {
                let temporary = "\(path).new"
                try DurableFile.write(Array(PolicyDocument.json(of: policy ?? Policy()).utf8), to: temporary)
                try DurableFile.move(temporary, to: path)
            }
        } catch {
            throw KeepingError(reason: "\(error)")
        }
    }

    /// Why a policy could not be kept in the policy file. The one before stays in force.
    public struct KeepingError: Error, CustomStringConvertible {
        let reason: String

        /// What the system said.
        public var description: String { reason }
    }
}
