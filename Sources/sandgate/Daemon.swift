import Audit
import CLinux
import Confinement
import Control
import EgressPolicy
import Glibc
import Logging
import NetPrimitives
import Sandboxes
import UnixSignals
import Webhook

/// The life of `sandgate serve`: the node takes up its sandboxes, then the API is served, until a signal ends it.
///
///     directories, threads ─▶ sandboxes taken up again ─▶ API served, readiness told ─▶ signal
///                                   ▲                                                     │
///     the next process: HotRestart ─┴──────────────── kept by systemd ◀───────────────────┴─▶ journal ended
///
/// Whatever ends it, the kernel's rules stay: sandboxes reach nothing until a daemon takes them up.
struct Daemon {
    let settings: ServeSettings
    private let log = Logger(label: "sandgate")
    private let notifier: ServiceNotifier
    private let kept: CInt?

    init(settings: ServeSettings) throws {
        self.settings = settings
        kept = ServiceNotifier.kept()
        notifier = try ServiceNotifier(log: log)
    }

    /// Before there is another thread: keeps what sandboxes take, for the threads that need it.
    func giveUpPrivileges() throws {
        umask(0o077)
        try DescriptorLimit.raiseForMany()
        try Privileges.giveUp(
            .serve,
            apiPort: settings.listenEndpoint.map { Int($0.port) },
            writing: settings.directories,
            reading: settings.ruleFiles + settings.secretFiles
        )
    }

    @Sendable func run() async throws {
        let signals = await UnixSignalsSequence(trapping: .sigterm, .sigint, .sighup)
        let requests = RequestsUnderWay()
        let end = DaemonEnd(requests: requests, log: log)
        let hangUps = AsyncStream.makeStream(of: Void.self, bufferingPolicy: .bufferingNewest(1))
        // Whatever else is waited for, a signal is heard.
        Task {
            for await signal in signals {
                if signal == .sighup { hangUps.continuation.yield() } else { end.begin(because: signal) }
            }
        }
        // Before they are read: taking up many sandboxes takes a while, in which they may change.
        let files = RuleFileWatch(settings.ruleFiles)
        let configuration = try settings.nodeConfiguration()
        let identity = try settings.tlsIdentity()
        let webhook = try settings.webhookEndpoint().map { DenialWebhook($0, node: Self.hostName(), log: log) }
        // What could keep it from serving is known before it takes over from the process before this one.
        let places = try places(identity)
        let node = try SandboxNode(configuration)
        end.prepare { await finish(node, webhook) }
        webhook?.start(on: node.journal)
        let beginning = try await node.begin(handedOver())
        for problem in beginning.problems { log.error("a sandbox was not taken up: \(problem)") }
        log.info(
            "sandboxes taken up",
            metadata: [
                "adopted": "\(beginning.adopted)", "vanished": "\(beginning.vanished)", "failed": "\(beginning.failed)",
            ]
        )
        let servers = servers(at: places, node, webhook, requests)
        do {
            try await serve(servers, node, identity, files, hangUps.stream, end)
        } catch {
            // A port that somebody else has, for one: the next process goes on with the traffic.
            await end.finish()
            throw error
        }
        await end.finish()
    }

    /// Serves, until the end is asked for.
    private func serve(
        _ servers: [ControlServer],
        _ node: SandboxNode,
        _ identity: TLSIdentity?,
        _ files: RuleFileWatch,
        _ hangUps: AsyncStream<Void>,
        _ end: DaemonEnd
    ) async throws {
        let readiness = Countdown(servers.count) { [log, settings] in
            chmod(settings.socket, 0o600)
            notifier.ready()
            clinux_release_memory()
            log.info("serving", metadata: ["socket": "\(settings.socket)", "listen": "\(settings.listen ?? "-")"])
        }
        try await withThrowingTaskGroup(of: Void.self) { group in
            for server in servers { group.addTask { try await server.run { await readiness.count() } } }
            group.addTask { await notifier.keepAlive { await node.visitLoops() } }
            group.addTask { [settings, log] in
                for await _ in files.changes { await Self.reload(settings, node, log) }
            }
            group.addTask { [settings, log] in
                for await _ in hangUps {
                    await Self.reload(settings, node, log)
                    if let identity { Self.reload(identity, log) }
                }
            }
            group.addTask {
                for await _ in end.beginnings { throw Stopped() }
            }
            do {
                try await group.next()
                while try await group.next() != nil {}
            } catch is Stopped {
                notifier.stopping()
            }
            group.cancelAll()
        }
    }

    /// What is done last.
    private func finish(_ node: SandboxNode, _ webhook: DenialWebhook?) async {
        // First what may take a moment: from the hand-over to the next process traffic waits.
        await webhook?.hurry()
        await handOver(node)
        // The last of it are those that came meanwhile, which are in the journal's thread until it is closed.
        await node.stop()
        await webhook?.stop(within: Self.patienceOfLastDenials)
    }

    private static func hostName() -> String {
        var buffer = [UInt8](repeating: 0, count: Int(HOST_NAME_MAX) + 1)
        let result = buffer.withUnsafeMutableBytes {
            gethostname($0.baseAddress!.assumingMemoryBound(to: CChar.self), $0.count - 1)
        }
        return result == 0 ? String(decoding: buffer.prefix { $0 != 0 }, as: UTF8.self) : ""
    }

    /// What the process before this one left to go on with.
    private func handedOver() -> HotRestart? {
        guard let stash = kept else { return nil }
        defer { notifier.forget() }
        do {
            let handed = try HotRestart(unpacking: stash)
            log.info("traffic taken over", metadata: ["sandboxes": "\(handed.count)"])
            return handed
        } catch {
            log.error("connections of the process before are lost: \(error)")
            return nil
        }
    }

    /// Leaves the traffic to the process that follows, where somebody keeps it.
    private func handOver(_ node: SandboxNode) async {
        guard notifier.isHeard else { return }
        do {
            let stash = try await node.handOver()
            notifier.keep(stash)
            close(stash)
        } catch {
            log.error("connections end with this process: \(error)")
        }
    }

    /// How long traffic may wait for what is told last.
    private static let patienceOfLastDenials = Duration.milliseconds(500)

    /// Why the daemon ends when all is well.
    private struct Stopped: Error {}

    /// Where the API is served.
    private func places(_ identity: TLSIdentity?) throws -> [ControlServer.Place] {
        try SocketPlace.prepare(settings.socket)
        let socket = ControlServer.Place.socket(path: settings.socket)
        guard let listen = settings.listen else { return [socket] }
        guard let path = settings.tokenFile else { throw SetupError("--listen needs --token-file") }
        guard let endpoint = settings.listenEndpoint else {
            throw SetupError("--listen \(listen): expected IP:PORT or [IPv6]:PORT")
        }
        let tokens: AccessTokens
        do {
            tokens = try AccessTokens(parsing: String(decoding: try PolicyFile.read(path), as: UTF8.self))
        } catch let error as AccessTokens.FormatError {
            throw SetupError("\(path): \(error)")
        }
        return [socket, .tcp(host: "\(endpoint.address)", port: Int(endpoint.port), tokens: tokens, tls: identity)]
    }

    private func servers(
        at places: [ControlServer.Place],
        _ node: SandboxNode,
        _ webhook: DenialWebhook?,
        _ requests: RequestsUnderWay
    ) -> [ControlServer] {
        let archive = AuditArchive(directory: settings.auditDir)
        // Named in commands that the API suggests.
        let socket = settings.socket == APIClient.defaultSocket ? nil : settings.socket
        return places.map { place in
            ControlServer(
                node: node,
                archive: archive,
                place: place,
                socket: socket,
                webhook: webhook,
                requests: requests,
                log: log
            )
        }
    }

    /// Reads the certificate and its key again, for connections from now on.
    private static func reload(_ identity: TLSIdentity, _ log: Logger) {
        do {
            try identity.reload()
            log.info("certificate read again")
        } catch {
            log.error("the certificate stays as it was: \(error)")
        }
    }

    /// Reads the files of rules again. What cannot be read or put in force leaves everything as it was.
    private static func reload(_ settings: ServeSettings, _ node: SandboxNode, _ log: Logger) async {
        do {
            let (always, waiting) = try await node.changeRules(settings.rules)
            log.info(
                "rules read again",
                metadata: [
                    "deny": "\(always.deny.count)", "allow": "\(always.allow.count)",
                    "answers": "\(always.answers.count)",
                ]
            )
            guard waiting > 0 else { return }
            log.warning("rules are not in force yet in sandboxes that are busy", metadata: ["sandboxes": "\(waiting)"])
        } catch {
            log.error("the rules stay as they were: \(error)")
        }
    }
}
