import ArgumentParser
import FoundationEssentials
import Glibc
import Sandboxes
import UpstreamDNS

/// `sandgate doctor`: what this kernel and these privileges allow.
struct DoctorCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "doctor",
        abstract: "Say what this kernel and these privileges allow, and what to do about what is missing.",
        discussion: """
            Everything is tried with throw-away namespaces: a table, a redirected connection, a refused one, a \
            confined command. Nothing is left behind, and nothing outside is asked.

            The exit status is 0 when all that sandgate run needs is there, else 1: as root what a sandbox takes, as \
            an ordinary user what one without root takes.

            With --security it says instead which capabilities each mode keeps once it has set everything up, what for, \
            and which ports a sandbox can reach; and what a live process holds: the one that --pid names, or the daemon, \
            if it runs. The exit status is 1 when a process holds more than it should.

            EXAMPLES:
              sudo sandgate doctor
              sandgate doctor                 # without root
              sudo sandgate doctor --json | jq '.modes[].findings[].outcome'
              sudo sandgate doctor --security
              sudo sandgate doctor --security --pid 4711
            """
    )

    @Flag(help: "Print one JSON object.")
    var json = false

    @Flag(help: "Say what each mode holds when it runs, and what a live process holds.")
    var security = false

    @Option(help: ArgumentHelp("With --security: look at this process.", valueName: "pid"))
    var pid: Int32?

    private static let notReady = ExitCode(1)

    func validate() throws {
        if pid != nil, !security { throw ValidationError("--pid goes with --security") }
    }

    func run() throws {
        let isFine: Bool
        if security {
            let report = try SecurityReport(process: pid ?? APIClient(socket: APIClient.defaultSocket).process)
            try print(report.document, report.lines)
            isFine = report.isSound
        } else {
            let diagnosis = Diagnosis()
            try print(diagnosis.document, diagnosis.lines)
            isFine = diagnosis.isReady
        }
        if !isFine { throw Self.notReady }
    }

    private func print(_ document: some Encodable, _ lines: [String]) throws {
        guard json else { return Console.output(lines.joined(separator: "\n")) }
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
        Console.output(String(decoding: try encoder.encode(document), as: UTF8.self))
    }
}

/// All that was tried, by the way in which Sandgate can run.
struct Diagnosis {
    private struct Mode {
        let name: String
        let purpose: String
        /// Whether the exit status speaks of it.
        let isNeeded: Bool
        let findings: [Finding]
        var isReady: Bool { !findings.contains(where: \.isObstacle) }
    }

    private let machine = Machine()
    private let modes: [Mode]

    init() {
        let isRoot = geteuid() == 0
        var findings = [Self.privileges()]
        if findings[0].outcome == .works {
            findings += KernelExamination.findings()
        } else {
            let what = isRoot ? "these capabilities" : "root"
            findings.append(Finding("kernel", .untried, "it takes \(what) to try"))
        }
        modes = [
            Mode(name: "run", purpose: "a sandbox as root", isNeeded: isRoot, findings: findings + [Self.resolver()]),
            Mode(
                name: "rootless",
                purpose: "what the kernel allows an ordinary user",
                isNeeded: !isRoot,
                findings: RootlessExamination.findings() + [Self.resolver()]
            ),
        ]
    }

    private static func privileges() -> Finding {
        do {
            try Privileges.requireForRun()
            return Finding("privileges", .works, "root, with the capabilities that a sandbox takes")
        } catch {
            let remedy =
                geteuid() == 0
                ? "in a container, run it with --cap-add SYS_ADMIN,NET_ADMIN,SETPCAP" : "use sudo, or run without root"
            return Finding("privileges", .missing, geteuid() == 0 ? "\(error)" : "not root", remedy: remedy)
        }
    }

    private static func resolver() -> Finding {
        let servers = UpstreamResolver.systemServers()
        guard servers.isEmpty else {
            return Finding("name servers", .works, "/etc/resolv.conf names \(servers.count)")
        }
        return Finding(
            "name servers",
            .missing,
            "/etc/resolv.conf names none",
            remedy: "give one to run with --upstream-dns IP"
        )
    }

    /// Whether all that is needed is there.
    var isReady: Bool { modes.allSatisfy { $0.isReady || !$0.isNeeded } }

    /// The lines for a person.
    var lines: [String] {
        var lines = ["Linux \(machine.kernel), \(machine.distribution)"]
        if let container = machine.container { lines.append("inside a container (\(container))") }
        for runtime in machine.runtimes { lines.append("\(runtime.name) at \(runtime.socket): \(runtime.detail)") }
        for mode in modes {
            let state = mode.isReady ? "ready" : "not ready"
            lines += ["", "\(mode.name) (\(mode.purpose)): \(state)"]
            let width = mode.findings.map(\.name.count).max() ?? 0
            for finding in mode.findings {
                let name = finding.name + String(repeating: " ", count: width - finding.name.count)
                let outcome = finding.isOptional && finding.outcome == .missing ? "without" : finding.outcome.rawValue
                let gap = String(repeating: " ", count: 9 - outcome.count)
                lines.append("  \(outcome)\(gap)\(name)  \(finding.detail)")
                if let remedy = finding.remedy { lines.append("           remedy: \(remedy)") }
            }
        }
        return lines
    }

    /// The members that `--json` prints.
    struct Document: Encodable {
        struct Mode: Encodable {
            let mode: String
            let needed: Bool
            let ready: Bool
            let findings: [Finding]
        }

        struct Finding: Encodable {
            let name: String
            let outcome: String
            let detail: String
            let remedy: String?
            let optional: Bool
        }

        let ready: Bool
        let kernel: String
        let distribution: String
        let container: String?
        let runtimes: [Machine.Runtime]
        let modes: [Mode]
    }

    var document: Document {
        Document(
            ready: isReady,
            kernel: machine.kernel,
            distribution: machine.distribution,
            container: machine.container,
            runtimes: machine.runtimes,
            modes: modes.map { mode in
                Document.Mode(
                    mode: mode.name,
                    needed: mode.isNeeded,
                    ready: mode.isReady,
                    findings: mode.findings.map {
                        Document.Finding(
                            name: $0.name,
                            outcome: $0.outcome.rawValue,
                            detail: $0.detail,
                            remedy: $0.remedy,
                            optional: $0.isOptional
                        )
                    }
                )
            }
        )
    }
}
