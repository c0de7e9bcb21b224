internal import CConfinement
public import FilePrimitives
internal import Glibc
internal import Namespaces

/// Starts commands that see one network namespace, their own processes, and no way around either.
public enum ConfinedCommand {
    /// What to run, and in what.
    public struct Configuration: Sendable {
        /// The command and its arguments; the first is searched on the PATH of ``environment`` unless it has a slash.
        public var arguments: [SystemString]
        /// What a shell runs before the command, in the same confinement; `nil` for nothing. The command then waits for
        /// a second ``ConfinedProcess/release()``.
        public var setupCommand: String?
        /// `NAME=value` entries. Those that point to sockets leading outside are taken out.
        public var environment: [SystemString]
        /// A descriptor of the network namespace.
        public var networkNamespace: CInt
        /// A descriptor of the user namespace that the network namespace belongs to, where this process has no
        /// privilege: the command gets one of its own below it. `nil` for a privileged supervisor.
        public var userNamespace: CInt?
        /// What the command finds in /etc/resolv.conf.
        public var resolvConf: [UInt8]
        /// The directory that the command starts in, absolute.
        public var workingDirectory: SystemString
        /// The descriptors that become the command's standard input, output and error. None may be a way out by itself:
        /// ``ConfinedCommand/spawn(_:)`` takes files, terminals, pipes, `/dev/null` and its like, and connected Unix sockets.
        public var standardDescriptors: (input: CInt, output: CInt, error: CInt)
        /// The soft limit of open files, where the supervisor raised its own; `nil` leaves it as it is.
        public var descriptorLimit: CInt?
        /// Signals that stay ignored in the command, such as SIGHUP under nohup.
        public var ignoredSignals: [CInt]
        /// Whether the command can make no Unix sockets but connected pairs. What is hidden from it is what there is when
        /// it starts; without sockets, what is made later is out of its reach as well.
        public var hasNoUnixSockets: Bool
        /// Files and directories of the supervisor's (its records, its state) that the command may read but not change.
        public var readOnlyPaths: [SystemString]
        /// Devices of the node, below /dev, that the command gets besides those that every program needs (``Device``).
        public var devices: [SystemString]

        /// A configuration that starts in the caller's working directory.
        public init(
            arguments: [SystemString],
            environment: [SystemString],
            networkNamespace: CInt,
            resolvConf: [UInt8]
        ) {
            self.arguments = arguments
            self.setupCommand = nil
            self.environment = environment
            self.networkNamespace = networkNamespace
            self.userNamespace = nil
            self.resolvConf = resolvConf
            self.workingDirectory = currentDirectory()
            self.standardDescriptors = (STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO)
            self.descriptorLimit = nil
            self.ignoredSignals = []
            self.hasNoUnixSockets = false
            self.readOnlyPaths = []
            self.devices = []
        }
    }

    /// Sets the confinement up and returns when all of it stands, with the command not yet started: what the caller
    /// checks in between, it checks on the real thing. ``ConfinedProcess/release()`` starts the command.
    ///
    /// A command that is not found ends with 127, one that cannot be executed with 126, each with a line on its stderr.
    public static func spawn(_ configuration: Configuration) throws(ConfinementError) -> ConfinedProcess {
        try StandardDescriptor.requireAllHarmless(
            configuration.standardDescriptors,
            protecting: configuration.readOnlyPaths
        )
        let mounts = try MountPlan(configuration)
        let steps = mounts.steps
        let (ours, theirs) = try makeChannel()
        var pidfd: CInt = -1
        let child = start(configuration, mounts, channel: theirs, &pidfd)
        let error = errno
        // Init has its own copy. With ours closed, the channel ends when init does.
        close(theirs)
        guard child > 0 else {
            defer { close(ours) }
            if child == 0 { try awaitReady(ours, steps, configuration) }
            throw ConfinementError(
                "cannot make the command's namespaces",
                errno: error,
                remedy: NamespaceLimit.cause(error, of: [.process, .mount, .ipc])
            )
        }
        let process = ConfinedProcess(pidfd: pidfd, channel: ours, initProcess: child, mounts.unplacedSockets)
        try awaitReady(ours, steps, configuration)
        return process
    }

    private static func start(
        _ configuration: Configuration,
        _ mounts: MountPlan,
        channel: CInt,
        _ pidfd: inout CInt
    ) -> CInt {
        let strings = CStrings()
        var plan = plan(for: configuration, strings)
        plan.channel = channel
        plan.ushered_steps = mounts.usheredSteps
        return withExtendedLifetime(strings) {
            mounts.steps.map { $0.encoded(strings) }.withUnsafeBufferPointer { encoded in
                plan.steps = encoded.baseAddress
                plan.step_count = encoded.count
                return confinement_start(&plan, &pidfd)
            }
        }
    }

    /// The memory that the kernel put this process's arguments in: one string behind the other.
    private static func ownArguments() -> (UnsafeMutablePointer<CChar>?, Int) {
        let arguments = CommandLine.unsafeArgv
        guard CommandLine.argc > 0, let first = arguments[0] else { return (nil, 0) }
        var end = first
        for index in 0..<Int(CommandLine.argc) {
            // Somebody may have replaced one; what is not in a row is not ours to write to.
            guard let argument = arguments[index], argument == end else { break }
            end += strlen(argument) + 1
        }
        return (first, end - first)
    }

    private static func plan(for configuration: Configuration, _ strings: CStrings) -> confinement_plan {
        var plan = confinement_plan()
        let arguments = configuration.arguments
        let name = arguments.first ?? ""
        let environment = OutsideEnvironment.removed(from: configuration.environment)
        plan.network = configuration.networkNamespace
        plan.user_namespace = configuration.userNamespace ?? -1
        plan.user_map = UnsafePointer(strings.string("\(geteuid()) \(geteuid()) 1\n"))
        plan.group_map = UnsafePointer(strings.string("\(getegid()) \(getegid()) 1\n"))
        plan.standard = configuration.standardDescriptors
        plan.descriptor_limit = configuration.descriptorLimit ?? 0
        plan.directory = UnsafePointer(strings.string(configuration.workingDirectory))
        plan.name = UnsafePointer(strings.string(name))
        let candidates = strings.array(CommandSearch.candidates(for: name, environment: environment))
        plan.candidates = UnsafeRawPointer(candidates).assumingMemoryBound(to: UnsafePointer<CChar>?.self)
        plan.arguments = UnsafePointer(strings.array(arguments))
        plan.shell_arguments = strings.array(["sh", nil] + arguments.dropFirst().map(Optional.some))
        plan.setup_arguments = configuration.setupCommand.map {
            UnsafePointer(strings.array(["sh", "-c", SystemString($0)]))
        }
        plan.environment = UnsafePointer(strings.array(environment))
        (plan.own_arguments, plan.own_length) = ownArguments()
        plan.without_unix_sockets = configuration.hasNoUnixSockets ? 1 : 0
        plan.without_dumps = givesDumpsToProgram() ? 1 : 0
        // In a user namespace of its own they would be worth nothing, but to the kernel's bugs.
        plan.capabilities = configuration.userNamespace == nil ? Capability.allowed : 0
        for number in configuration.ignoredSignals { plan.ignored_signals |= 1 << UInt64(number - 1) }
        return plan
    }

    /// Whether the kernel gives core dumps to a program of the node (`|/usr/lib/systemd/systemd-coredump …`, core(5)), which it
    /// starts outside every namespace, with words of the command's choice and what is in its memory. Where it does not say, it
    /// may.
    private static func givesDumpsToProgram() -> Bool {
        let file = open("/proc/sys/kernel/core_pattern", O_RDONLY | O_CLOEXEC)
        guard file >= 0 else { return true }
        defer { close(file) }
        var first: UInt8 = 0
        let count = read(file, &first, 1)
        return count < 0 || count == 1 && first == UInt8(ascii: "|")
    }

    /// A pair of connected sockets, close-on-exec. Init keeps the second, above the standard descriptors even if those
    /// were closed.
    private static func makeChannel() throws(ConfinementError) -> (ours: CInt, theirs: CInt) {
        var pair: [CInt] = [-1, -1]
        let type = CInt(SOCK_SEQPACKET.rawValue) | CInt(SOCK_CLOEXEC.rawValue)
        guard socketpair(AF_UNIX, type, 0, &pair) == 0 else {
            throw ConfinementError("cannot make a socket pair", errno: errno)
        }
        let theirs = fcntl(pair[1], F_DUPFD_CLOEXEC, 3)
        let error = errno
        close(pair[1])
        guard theirs >= 3 else {
            close(pair[0])
            throw ConfinementError("cannot make a socket pair", errno: error)
        }
        return (pair[0], theirs)
    }

    private static func awaitReady(
        _ channel: CInt,
        _ steps: [MountStep],
        _ configuration: Configuration
    ) throws(ConfinementError) {
        var message = confinement_message()
        let size = MemoryLayout<confinement_message>.size
        var count = -1
        repeat { count = recv(channel, &message, size, 0) } while count < 0 && errno == EINTR
        guard count == size else {
            throw ConfinementError("cannot set up the confinement: its init ended", errno: count < 0 ? errno : ECHILD)
        }
        if message.kind == CInt(CONFINEMENT_READY.rawValue) { return }
        throw ConfinementError(
            failure(atStage: message.value, steps, configuration),
            errno: message.detail,
            remedy: remedy(atStage: message.value, steps, configuration, message.detail)
        )
    }

    private static func remedy(
        atStage stage: CInt,
        _ steps: [MountStep],
        _ configuration: Configuration,
        _ error: CInt
    ) -> String {
        switch stage {
        // Init's namespaces are made together, so without root the user namespace's failure is theirs.
        case CInt(CONFINEMENT_STAGE_USER.rawValue):
            return NamespaceLimit.cause(error, of: [.user, .process, .mount, .ipc])
        case CInt(CONFINEMENT_STAGE_MOUNTS.rawValue):
            return NamespaceLimit.cause(error, of: [.mount])
        case CInt(CONFINEMENT_STAGE_STEPS.rawValue)...:
            // The kernel's mnt_already_visible.
            guard case .mount("proc", _, _, _) = steps[Int(stage - CInt(CONFINEMENT_STAGE_STEPS.rawValue))].operation,
                configuration.userNamespace != nil
            else { return "" }
            return "with Docker, --security-opt systempaths=unconfined helps"
        default: return ""
        }
    }

    private static func failure(atStage stage: CInt, _ steps: [MountStep], _ configuration: Configuration) -> String {
        switch stage {
        case CInt(CONFINEMENT_STAGE_USER.rawValue): "cannot start the command's init in a user namespace of its own"
        case CInt(CONFINEMENT_STAGE_MOUNTS.rawValue): "cannot make a mount namespace"
        case CInt(CONFINEMENT_STAGE_NETWORK.rawValue): "cannot enter the network namespace"
        case CInt(CONFINEMENT_STAGE_DESCRIPTORS.rawValue): "cannot arrange the command's descriptors"
        case CInt(CONFINEMENT_STAGE_DIRECTORY.rawValue): "cannot change to directory \(configuration.workingDirectory)"
        case CInt(CONFINEMENT_STAGE_CAPABILITIES.rawValue): "cannot drop capabilities"
        case CInt(CONFINEMENT_STAGE_PRIVILEGES.rawValue): "cannot hide the command's init"
        case CInt(CONFINEMENT_STAGE_SECCOMP.rawValue): "cannot install the system call filter"
        default: failure(of: steps[Int(stage - CInt(CONFINEMENT_STAGE_STEPS.rawValue))], configuration)
        }
    }

    private static func failure(of step: MountStep, _ configuration: Configuration) -> String {
        guard configuration.userNamespace != nil else { return step.failure }
        if case .mount("proc", _, _, _) = step.operation {
            return "\(step.failure) without root where parts of it are covered, as in a container"
        }
        return "\(step.failure) without root"
    }
}

/// The working directory of this process; `/` when it was removed.
func currentDirectory() -> SystemString {
    var buffer = [CChar](repeating: 0, count: Int(PATH_MAX))
    guard getcwd(&buffer, buffer.count) != nil else { return "/" }
    return SystemString(cString: buffer)
}
