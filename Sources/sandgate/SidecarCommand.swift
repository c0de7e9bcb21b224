import ArgumentParser
import Audit
import CLinux
import Confinement
import Control
import EgressCore
import EgressPolicy
import FilePrimitives
import Glibc
import Logging
import Namespaces
import NetPrimitives
import Reactor
import Sandboxes
import Synchronization
import UnixSignals
import Webhook

/// `sandgate sidecar`: one sandbox's network, guarded from within, in place of OpenSandbox's egress container.
struct SidecarCommand: StagedCommand {
    static let configuration = CommandConfiguration(
        commandName: "sidecar",
        abstract:
            "Guard the network that this container shares with a sandbox, in place of OpenSandbox's egress image.",
        discussion: """
            Enforces before GET /healthz answers, and takes policies at /policy as OpenSandbox's SDK and server send \
            them. Needs CAP_NET_ADMIN and CAP_NET_RAW. The rules stay when it ends: the sandbox reaches nothing then.

            EXAMPLES:
              sandgate sidecar
              sandgate sidecar --check   # in the container, for its health check

            ENVIRONMENT:
            """ + "\n" + SidecarSettings.documentation.split(separator: "\n").map { "  \($0)" }.joined(separator: "\n")
    )

    @Flag(help: "Ask the sidecar that runs in this container whether it is well, and end: 0 when it is.")
    var check = false

    func begin() throws -> @Sendable () async throws -> Void {
        var environment: [String: String] = [:]
        for variable in RunEnvironment.current() {
            let parts = variable.description.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            if parts.count == 2 { environment[String(parts[0])] = String(parts[1]) }
        }
        var settings = try SidecarSettings(environment)
        guard !check else {
            try SidecarHealth.require(settings.server)
            return {}
        }
        try Privileges.requireForSidecar()
        try OwnNetwork.requireSandbox(environment)
        let key = try NetworkKey(keptIn: settings.auditDirectory)
        try settings.completeUpstream(after: try Sidecar.predecessor(key: key))
        Diagnostics.start(level: settings.logLevel)
        let log = settings.logger()
        settings.remarks.forEach { log.warning("\($0)") }
        umask(0o077)
        try DescriptorLimit.raiseForMany()
        do { try keepAdvertisedIPv6() } catch { log.warning("IPv6 may end after a while: \(error)") }
        // For as long as the process lives.
        let queues = try OccupiedQueues(of: outerDevices())
        try Privileges.giveUp(
            .sidecar,
            apiPort: settings.server.port,
            writing: settings.directories,
            reading: settings.ruleFiles
        )
        return { [settings] in
            try await Self.serve(settings, log)
            withExtendedLifetime(queues) {}
        }
    }

    private static func serve(_ settings: SidecarSettings, _ log: Logger) async throws {
        let signals = await UnixSignalsSequence(trapping: .sigterm, .sigint)
        let journal = try NodeJournal(directory: settings.auditDirectory, limits: AuditTrail.Limits())
        // For `docker logs`: every record, as it is in the trail.
        let lines = journal.lines()
        Task {
            var output = StandardOutput()
            for await line in lines {
                try? output.line(line.bytes)
                try? output.flush()
            }
        }
        journal.record([AuditEvent(.daemonStarted, time: .current, sandbox: settings.sidecar.id)])
        var configuration = settings.sidecar
        // Before they are read, so that no change is missed.
        let files = RuleFileWatch(settings.ruleFiles)
        configuration.always = try settings.always()
        let told = Mutex<DeniedHostWebhook?>(nil)
        let sidecar = try Sidecar(
            configuration,
            outlet: journal.outlet.observed { events in told.withLock { $0 }?.offer(events) }
        )
        let webhook = try settings.webhook(by: sidecar, log)
        told.withLock { $0 = webhook }
        try await sidecar.begin()
        Keeper.end()
        webhook?.start()
        log.info("enforcing", metadata: ["rules": "\(configuration.policy?.rules.count ?? 0)"])
        let server = SidecarServer(sidecar, settings.server, log: log)
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask {
                try await server.run {
                    clinux_release_memory()
                    log.info("serving", metadata: ["port": "\(settings.server.port)"])
                }
            }
            group.addTask {
                for await _ in files.changes {
                    do { try await sidecar.changeAlways(try settings.always()) } catch {
                        log.error("the rules stay as they were: \(error)")
                    }
                }
            }
            group.addTask {
                for await signal in signals { throw Stopped(signal: signal) }
            }
            do {
                while try await group.next() != nil {}
            } catch let stopped as Stopped {
                log.info("stopping; the rules stay", metadata: ["signal": "\(stopped.signal)"])
            }
            group.cancelAll()
        }
        await sidecar.stop()
        await webhook?.stop()
        journal.record([AuditEvent(.daemonStopped, time: .current, sandbox: settings.sidecar.id)])
        await journal.close()
    }

    /// Why it ends when all is well.
    private struct Stopped: Error {
        let signal: UnixSignal
    }
}

extension SidecarSettings {
    /// Has what every line is to have.
    fileprivate func logger() -> Logger {
        var log = Logger(label: "sandgate")
        for (name, value) in attributes { log[metadataKey: name] = "\(value)" }
        return log
    }

    /// Tells of refused names by the sidecar's own way out, where `deny.always` holds and no policy does.
    fileprivate func webhook(by sidecar: Sidecar, _ log: Logger) throws -> DeniedHostWebhook? {
        guard let denyWebhook else { return nil }
        do {
            // Without a name the original tells none.
            let name = attributes.first { $0.name == "sandbox_id" }?.value ?? ""
            return try DeniedHostWebhook(denyWebhook, sandbox: name, log: log) { host, port in
                try await sidecar.connect(to: host, port: port, deny: try alwaysDenied())
            }
        } catch {
            throw SetupError("OPENSANDBOX_EGRESS_DENY_WEBHOOK: \(error)")
        }
    }
}

/// The network that this process is in.
enum OwnNetwork {
    /// Refuses where it is no sandbox's but the machine's own: everything on the machine would be guarded.
    static func requireSandbox(_ environment: [String: String]) throws {
        guard !SidecarSettings.isTrue(environment["SANDGATE_ACCEPT_HARDWARE"] ?? "") else { return }
        for (device, _) in outerDevices() {
            for mark in ["device", "bridge"] where access("/sys/class/net/\(device)/\(mark)", F_OK) == 0 {
                throw SetupError(
                    "\(device) is a \(mark == "bridge" ? "bridge" : "hardware device"): this is a machine's network, not a "
                        + "sandbox's. Where the sandbox is a virtual machine of its own, set SANDGATE_ACCEPT_HARDWARE=true"
                )
            }
        }
    }

}
