import Audit
import CLinux
import Confinement
import Datapath
import EgressCore
import EgressPolicy
import FilePrimitives
import Glibc
import HostDetection
import Logging
import Namespaces
import NetPrimitives
import PolicyDocument
import Reactor
import Sandboxes
import UpstreamDNS

/// What a run is to do, all of it validated.
struct RunPlan {
    let policy: Policy
    let upstreamServers: [Endpoint]
    let announcedProxies: ProxyAnnouncement
    /// Bounds on what the command may take.
    let limits: Attachment.Limits
    let auditPath: String?
    /// Where the policy came from, if from a file.
    let policyPath: String?
    /// Where a policy made of what happened is to be written, if anywhere.
    let suggestionPath: String?
    let isQuiet: Bool
    /// Whether to do without privilege.
    let isRootless: Bool
    /// Whether the command can make no Unix sockets.
    let hasNoUnixSockets: Bool
    /// Devices that are handed over to the command.
    let devices: [String]
    /// What a shell runs before the command, under the rules of the policy's set-up phase, too.
    let setupCommand: String?
    /// Who is asked about what no rule speaks of, if somebody is.
    let asked: AskedParty?
    /// Where what is allowed for always is kept, if anywhere.
    let answers: AnswerFile?
    let command: [String]
    /// The tool that the command is, if it could be asked for the hosts it is configured for and was not.
    let detectableTool: Tool?
}

/// One command under enforcement, from set-up to its exit status.
///
///     namespace ─▶ door closed, sockets, redirects ─▶ command made, held ─▶ self-test ─▶ released ─▶ … ─▶ ended
///                                                                              └─ failed: never started
///     with a set-up command:                              self-test ─▶ set-up ─▶ ended ─▶ locked ─▶ released ─▶ …
///                                                                                └─ failed: never started
final class SandboxedRun {
    private static let forwardedSignals = [
        SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH, SIGTSTP, SIGCONT,
    ]
    /// Of these, signals that ask for no end: before there is a command, a window that is resized is nobody's business.
    private static let signalsForNobody = [SIGWINCH, SIGTSTP, SIGCONT]
    /// Signals that a terminal sends to those who use it from the background; being told a refusal is no reason to stop.
    private static let ignoredSignals = [SIGTTIN, SIGTTOU]

    /// How long what the command left behind, such as bytes that a server has not taken, may go on after it.
    private static let patienceNanoseconds: UInt64 = 60_000_000
    private static let settlingNanoseconds: UInt64 = 1_000_000

    private static var sandboxID: String { "run-\(getpid())" }

    private let log = Logger(label: "sandgate")
    private let plan: RunPlan
    private let loop: EventLoop
    private let journal: RunJournal
    private var sandbox: Sandbox?
    private var process: ConfinedProcess?
    private var asked: (any Asker)?
    private var isReleased = false
    /// The limit of open files that we were started with, which the command gets.
    private var descriptorLimit: CInt?
    /// What the command, whose user is ours, may not write. As root it may: it could do worse.
    private let startupFiles: StartupFiles?
    private var failure: (any Error)?
    private var status: ExitStatus?
    /// How the set-up command failed, if it did.
    private var setupFailure: ExitStatus?
    private var isLocked = false

    init(_ plan: RunPlan) throws {
        self.plan = plan
        self.loop = try EventLoop()
        self.startupFiles = plan.isRootless ? try StartupFiles() : nil
        self.journal = try RunJournal(plan)
    }

    /// Runs the command to its end; returns the exit status for ours.
    func run() throws -> CInt {
        try Self.refuseToNest()
        if !plan.isRootless { try Privileges.requireForRun() }
        try Supervisor.protect()
        let signals = try SignalSource(loop: loop, signals: Self.forwardedSignals + Self.ignoredSignals) {
            [weak self] in self?.forward($0)
        }
        // After the signals are blocked, which the thread inherits.
        try Console.writeInBackground()

        descriptorLimit = DescriptorLimit.raise()

        let network = try RunNetwork.make(isRootless: plan.isRootless)
        log.debug("network made", metadata: ["rootless": "\(plan.isRootless)"])
        // Before they are listed, so that no change is missed.
        let addresses = try NodeAddressWatcher(loop: loop) { [weak self] in self?.sandbox?.guardNode(at: $0) }
        let always = AlwaysRules(answers: plan.answers?.rulesAtOpening ?? [])
        let policy = CompiledPolicy(plan.policy, always: always, nodeAddresses: try nodeAddresses())
        let upstream = try UpstreamResolver(loop: loop, servers: plan.upstreamServers)
        let sandbox = try Sandbox(
            id: Self.sandboxID,
            loop: loop,
            access: network.access,
            policy: policy,
            upstream: upstream,
            limits: plan.limits,
            isAsking: plan.asked != nil,
            record: journal.record
        )
        self.sandbox = sandbox
        try startAsking(in: sandbox)
        log.debug(
            "door closed, listeners open",
            metadata: ["rules": "\(plan.policy.rules.count)", "upstreams": "\(plan.upstreamServers)"]
        )
        let process = try ConfinedCommand.spawn(configuration(in: network))
        self.process = process
        log.debug("command held", metadata: ["init": "\(process.initProcess)"])
        warn(ofSockets: process.unplacedSockets)
        warn(ofFiles: startupFiles?.withOtherNames ?? [])
        let watcher = try ProcessWatcher(
            loop: loop,
            process: process,
            onSetupEnd: { [weak self] in self?.setupEnded($0) },
            onEnd: { [weak self] in self?.ended($0) }
        )

        sandbox.selfTest { [weak self] failure in self?.selfTestEnded(failure) }
        journal.flushRegularly(on: loop)
        try loop.run()

        sandbox.stop()
        asked?.stop()
        Console.beginWaiting()
        setAsideStartupFiles()
        journal.finish()
        watcher.stop()
        addresses.stop()
        signals.stop()
        withExtendedLifetime((network, upstream)) {}
        if let failure { throw failure }
        guard let status else { throw SetupError("the command's exit status is unknown") }
        return status.code
    }

    private func startAsking(in sandbox: Sandbox) throws {
        guard let party = plan.asked, let desk = sandbox.attachment.desk else { return }
        if let answers = plan.answers { desk.keep = answers.add(_:enforce:) }
        let asked = try party.open(about: plan.command, in: Self.sandboxID)
        try asked.attend(desk, on: loop)
        self.asked = asked
    }

    /// A sandbox lacks, among others, a /proc that can be mounted again.
    private static func refuseToNest() throws {
        guard let name = try? PolicyFile.read("/proc/1/comm"), name.starts(with: "sandgate-init\n".utf8) else { return }
        throw SetupError(
            "this is inside a sandbox of sandgate already: its policy holds for whatever is started here, "
                + "so start the command without sandgate run"
        )
    }

    private func warn(ofFiles paths: [SystemString]) {
        for path in paths {
            Console.error(
                "\(path.description.inOneLine) has another name (a hard link): by that the command may be able to write it"
            )
        }
    }

    private func warn(ofSockets names: [SystemString]) {
        for name in names {
            Console.error(
                "a unix socket that a program bound as \(name.isEmpty ? "(no name)" : name.description.inOneLine) was not found, "
                    + "so it is not hidden: the command can use it where it finds it"
            )
        }
    }

    private func setAsideStartupFiles() {
        for (path, outcome) in startupFiles?.setAside() ?? [] {
            let what = "the command left \(path.description.inOneLine), which programs outside run or obey"
            switch outcome {
            case .renamed(let newPath): Console.error("\(what): it is now \(newPath.description.inOneLine)")
            case .removed: Console.error("\(what): it could not be renamed and was removed")
            case .stays(let error):
                Console.error("\(what), and it could not be removed (\(String(cString: strerror(error)))): do so")
            }
        }
    }

    private func configuration(in network: RunNetwork) -> ConfinedCommand.Configuration {
        var configuration = ConfinedCommand.Configuration(
            arguments: CommandWords.asGiven(plan.command),
            environment: RunEnvironment.make(announcing: plan.announcedProxies, at: Sandbox.proxyPort),
            networkNamespace: network.namespace.descriptor,
            resolvConf: Array(
                "# sandgate: every query is answered by its resolver\nnameserver 127.0.0.1\noptions edns0\n".utf8
            )
        )
        configuration.userNamespace = network.userNamespace?.descriptor
        configuration.setupCommand = plan.setupCommand
        configuration.descriptorLimit = descriptorLimit
        configuration.hasNoUnixSockets = plan.hasNoUnixSockets
        configuration.devices = plan.devices.map { SystemString($0) }
        // What happened is not the command's to rewrite, nor what the next one may do, nor the program that guards it.
        let ours = [plan.auditPath, plan.policyPath, plan.suggestionPath, plan.answers?.path]
        configuration.readOnlyPaths = (["/proc/self/exe"] + ours).compactMap {
            $0.flatMap { RealPath.of(SystemString($0)) }
        }
        configuration.readOnlyPaths += startupFiles?.existing ?? []
        return configuration
    }
}

// MARK: - Events

extension SandboxedRun {
    private func selfTestEnded(_ problem: SelfTestFailure?) {
        // Ended by a signal meanwhile.
        guard failure == nil else { return }
        if let problem {
            failure = problem
            process?.kill()
            return
        }
        do {
            try sandbox?.onRulesetChange {
                Console.error("nothing leaves this run's network any more, as somebody else changed its rules: \($0)")
            }
            sandbox?.onSetupEnd { [weak self] in self?.lock("the set-up phase's time was over") }
            try Privileges.giveUp(afterSettingUp: plan.isRootless ? .rootless : .run)
            sandbox?.record(.sandboxAttached)
            clinux_release_memory()
            try process?.release()
            isReleased = true
            log.debug("self-test passed, command started")
        } catch {
            failure = error
            process?.kill()
        }
    }

    /// Install, then lock: the command is started when nothing of the wider reach is left.
    private func setupEnded(_ status: ExitStatus) {
        guard status == .exited(0) else {
            setupFailure = status
            Console.error("the set-up command ended with status \(status.code): the command is not started")
            process?.kill()
            return
        }
        lock("the set-up command ended")
        do {
            try process?.release()
        } catch {
            failure = error
            process?.kill()
        }
    }

    private func lock(_ cause: String) {
        guard !isLocked else { return }
        isLocked = true
        sandbox?.lock(cause)
        if !plan.isQuiet { Console.error("locked, as \(cause)") }
    }

    private func ended(_ status: ExitStatus) {
        self.status = setupFailure ?? status
        if let error = process?.failure { failure = error }
        log.debug("command ended", metadata: ["status": "\(status)"])
        settle(until: loop.now.advanced(byNanoseconds: Self.patienceNanoseconds))
    }

    /// Ends when all that the command sent last has been read, and what came of it has been done: queries judged,
    /// connections relayed. Nobody sends any more, so that is soon, but for a server that says no end.
    private func settle(until deadline: MonotonicTime, lookingAt time: MonotonicTime? = nil) {
        _ = loop.schedule(at: time ?? loop.now) { [weak self] in
            guard let self else { return }
            let isQuiet = sandbox?.isQuiet ?? true
            guard (isQuiet && loop.eventCount == 0) || loop.now >= deadline else {
                // When something is under way, its events come; nothing is won by looking all the time.
                let pause = isQuiet ? 0 : Self.settlingNanoseconds
                return settle(until: deadline, lookingAt: loop.now.advanced(byNanoseconds: pause))
            }
            sandbox?.finishRefusals()
            sandbox?.leaveLingering()
            if isReleased { sandbox?.record(.sandboxDetached) }
            loop.stop()
        }
    }

    private func forward(_ number: CInt) {
        guard Self.forwardedSignals.contains(number) else { return }
        if isReleased {
            process?.signal(number)
        } else if !Self.signalsForNobody.contains(number) {
            failure = SetupError("ended by signal \(number) before the command was started")
            process?.kill()
        }
    }
}
