import ArgumentParser
import Datapath
import EgressCore
import EgressPolicy
import Glibc
import HostDetection
import Logging
import NetPrimitives
import PolicyDocument
import Reactor
import Sandboxes
import UpstreamDNS

/// `sandgate run`: one command in a fresh network namespace under a policy.
struct RunCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "run",
        abstract: "Run one command that can reach only what its policy allows.",
        usage:
            "sandgate run [--policy FILE] [--preset NAME]… [--detect] [--allow TARGET]… [--deny TARGET]… [--setup COMMAND] [OPTIONS] -- COMMAND [ARG…]",
        discussion: """
            The command gets a network namespace of its own. Its DNS, its connections and its packets are judged by \
            the policy; what no rule allows is refused at once. Without --policy, --preset and --allow, everything is refused. \
            Needs no root where the system lets ordinary users make user namespaces. The command then \
            has no capability, and your start-up files (.bashrc, .ssh …) are read-only for it.

            With --setup, a shell runs that command first, in the same sandbox, and what networkPolicy.setup and \
            --setup-allow name can be reached as well. When it ends, the sandbox is locked: nothing that only set-up could \
            reach is reached any more, not by what it left running either. Then the command is started; when set-up failed \
            it is not, and the exit status is that of set-up.

            The exit status is the command's, 128+N if signal N ended it, 125 if the sandbox could not be set up: \
            then the command was never started.

            EXAMPLES:
              sandgate run --allow github.com -- git clone https://github.com/owner/project
              sandgate run --policy policy.yaml --audit audit.jsonl -- ./agent
              sandgate run --preset claude-code --preset github -- claude
              sandgate run --detect -- pip install requests   # from its configured index
              sandgate run --report --policy policy.yaml -- make test   # what is missing?
              sandgate run --learn --suggest policy.yaml -- make test
              sandgate run -- python3 untrusted.py            # no network at all
              sandgate run --setup-allow git.example.com --setup 'make deps' -- make test
              sandgate run --ask-terminal /dev/pts/7 -- claude   # asks in another window
            """
    )

    @Option(help: ArgumentHelp("The policy: a networkPolicy in YAML or JSON.", valueName: "file"))
    var policy: String?

    @Option(
        parsing: .singleValue,
        help: ArgumentHelp(
            "Add the rules of a policy that comes with sandgate, behind the file's; sandgate policy presets lists them.",
            valueName: "name"
        )
    )
    var preset: [String] = []

    @Flag(
        help: ArgumentHelp(
            "Allow the hosts that the command's own configuration names: \(Tool.allNames). What lies in the working "
                + "directory does not count; URLs on the command line do."
        )
    )
    var detect = false

    @Option(
        parsing: .singleValue,
        help: ArgumentHelp(
            "Allow a name, wildcard, address or CIDR, with an optional :PORT. Stands before the file's rules.",
            valueName: "target"
        )
    )
    var allow: [String] = []

    @Option(
        parsing: .singleValue,
        help: ArgumentHelp("Deny a target. Stands before every --allow.", valueName: "target")
    )
    var deny: [String] = []

    @Option(
        help: ArgumentHelp(
            "Have a shell run this first, with the set-up rules besides; they are gone before the command starts.",
            valueName: "command"
        )
    )
    var setup: String?

    @Option(
        parsing: .singleValue,
        help: ArgumentHelp("Add a set-up rule that allows a target, as --allow does. For --setup.", valueName: "target")
    )
    var setupAllow: [String] = []

    @Flag(help: "Let everything but guard ranges pass, and record what would have been denied.")
    var report = false

    @Flag(help: "Like --report: run once, then read which policy lines the command needs; see --suggest.")
    var learn = false

    @Option(
        parsing: .singleValue,
        help: ArgumentHelp(
            "Ask this DNS server, in the order given (default: those of /etc/resolv.conf).",
            valueName: "ip[:port]"
        )
    )
    var upstreamDNS: [String] = []

    @Flag(name: .customLong("proxy-env"), help: "Also announce an HTTP proxy to the command (HTTP_PROXY, HTTPS_PROXY).")
    var proxyEnvironment = false

    @Flag(
        name: .customLong("socks-env"),
        help: "Also announce a SOCKS5 proxy (ALL_PROXY); some programs need a module of their own to use one."
    )
    var socksEnvironment = false

    @Option(
        help: ArgumentHelp("Append every decision to this file, one JSON object a line.", valueName: "file")
    )
    var audit: String?

    @Option(
        parsing: .singleValue,
        help: ArgumentHelp(
            "A bound on what the command may take; sandgate serve --print-config shows those there are.",
            valueName: "name=number"
        )
    )
    var limit: [String] = []

    @Option(
        help: ArgumentHelp(
            "When the command has ended, write the smallest policy under which it works to this new file; best with --learn.",
            valueName: "file"
        )
    )
    var suggest: String?

    @Flag(name: .shortAndLong, help: "Print neither refusals nor the table at the end.")
    var quiet = false

    @Option(
        help: ArgumentHelp("Say what Sandgate itself does, on standard error: debug, warning, …", valueName: "level"),
        transform: Diagnostics.level
    )
    var logLevel: Logger.Level = .warning

    @Flag(
        help: ArgumentHelp(
            "Let the command make no Unix sockets but connected pairs. Those of programs outside are hidden as they are "
                + "when it starts; this way it cannot reach later ones either."
        )
    )
    var noUnixSockets = false

    @Option(
        parsing: .singleValue,
        help: ArgumentHelp(
            "Hand a device below /dev over, such as a serial line; the command finds none but those that lead nowhere.",
            valueName: "path"
        )
    )
    var device: [String] = []

    @Flag(help: "Use none of root's privileges, as is done for ordinary users.")
    var rootless = false

    @Option(
        help: ArgumentHelp(
            "Hold connections to names that no rule speaks of, and ask this program (a shell command, started outside): "
                + "it gets each question as a line of JSON and answers with lines of JSON.",
            valueName: "command"
        )
    )
    var askCommand: String?

    @Option(
        help: ArgumentHelp(
            "Hold connections to names that no rule speaks of, and ask in this terminal, which is another one than the command's: "
                + "what tty(1) says in a second window.",
            valueName: "tty"
        )
    )
    var askTerminal: String?

    @Option(
        help: ArgumentHelp(
            "Keep the answer \"always\" in this file, as rules behind the policy of each run that names the file.",
            valueName: "file"
        )
    )
    var answers: String?

    @Option(help: ArgumentHelp("How long a question waits for its answer, in seconds.", valueName: "seconds"))
    var askTimeout: Int?

    @Argument(parsing: .postTerminator, help: "The command and its arguments.")
    var command: [String] = []

    func validate() throws {
        if setup == nil, !setupAllow.isEmpty {
            throw ValidationError("--setup-allow is for a set-up command: give one with --setup")
        }
        if command.isEmpty {
            throw ValidationError(
                "missing command: write it after --, as in: sandgate run --allow example.com -- curl …"
            )
        }
        if askCommand != nil, askTerminal != nil {
            throw ValidationError("--ask-command and --ask-terminal: only one of them can be asked")
        }
        let isAsking = askCommand != nil || askTerminal != nil
        if answers != nil, !isAsking { throw ValidationError("--answers needs --ask-command or --ask-terminal") }
        try AskOption.validate(ask: isAsking, timeout: askTimeout, option: "--ask-command or --ask-terminal")
    }

    func run() throws {
        Diagnostics.start(level: logLevel)
        var limits = Attachment.Limits()
        try LimitSetting.apply(limit, to: &limits)
        if let askTimeout { limits.questions.deadlineSeconds = UInt64(askTimeout) }
        let assembled = try policyAssembly().assemble()
        try review(assembled.setup)
        let plan = try RunPlan(
            policy: assembled,
            upstreamServers: UpstreamOption.servers(upstreamDNS),
            announcedProxies: announcedProxies,
            limits: limits,
            auditPath: audit,
            policyPath: policy,
            suggestionPath: suggest,
            isQuiet: quiet,
            isRootless: rootless || geteuid() != 0,
            hasNoUnixSockets: noUnixSockets,
            devices: device,
            setupCommand: setup,
            asked: askCommand.map { .command($0) } ?? askTerminal.map { .terminal($0) },
            answers: answers.map { try AnswerFile(path: $0, isHeld: true) },
            command: command,
            detectableTool: detect || assembled.defaultAction == .allow ? nil : Tool.Invocation(command: command)?.tool
        )
        let status = try SandboxedRun(plan).run()
        throw ExitCode(status)
    }

    /// What a policy's set-up phase means for this run.
    private func review(_ phase: SetupPhase?) throws {
        guard let phase else {
            guard setup != nil else { return }
            throw SetupError(
                "--setup: there are no set-up rules: name hosts with --setup-allow, or write networkPolicy.setup"
            )
        }
        if suggest != nil { throw SetupError("--suggest: a policy with a set-up phase cannot be completed") }
        if setup == nil, !quiet {
            Console.error(
                "the policy's set-up rules hold until \(Timestamp.text(of: phase.endsAt)): no --setup command ends them sooner"
            )
        }
    }

    private var announcedProxies: ProxyAnnouncement {
        var announced: ProxyAnnouncement = []
        if proxyEnvironment { announced.insert(.http) }
        if socksEnvironment { announced.insert(.socks) }
        return announced
    }

    private func policyAssembly() throws -> PolicyAssembly {
        PolicyAssembly(
            file: policy,
            presets: preset,
            detected: detect ? try CommandDetection(command: command).rules(isQuiet: quiet) : nil,
            allow: allow,
            deny: deny,
            setupAllow: setupAllow,
            isReport: report || learn
        )
    }
}

/// The values of `--upstream-dns`.
enum UpstreamOption {
    /// The servers that were named by `option`; none: those of the system.
    static func servers(_ names: [String], option: String = "--upstream-dns") throws -> [Endpoint] {
        guard names.isEmpty else {
            return try names.map { text in
                guard let endpoint = Endpoint(parsing: text, defaultPort: 53) else {
                    throw SetupError("\(option) \(text): expected IP, IP:PORT or [IPv6]:PORT")
                }
                return endpoint
            }
        }
        let servers = UpstreamResolver.systemServers()
        guard !servers.isEmpty else {
            throw SetupError("no DNS server to ask: /etc/resolv.conf names none; give one with \(option)")
        }
        return servers
    }
}

/// Why a command was not started: one clause for a person.
struct SetupError: Error, CustomStringConvertible {
    let description: String

    init(_ description: String) {
        self.description = description
    }
}
