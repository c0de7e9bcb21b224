import ArgumentParser
import Glibc
import Sandboxes

/// A command that first does what takes a process with one thread, such as giving privileges up.
protocol StagedCommand: AsyncParsableCommand {
    /// Does it, on the main thread, and returns the rest.
    func begin() throws -> @Sendable () async throws -> Void
}

extension StagedCommand {
    func run() async throws {
        let rest = try begin()
        try await rest()
    }
}

@main
struct Sandgate: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "sandgate",
        abstract: "Run untrusted code that can reach only what its policy allows.",
        discussion: """
            EXAMPLES:
              sandgate run --allow github.com -- git clone https://github.com/owner/project
              sandgate policy check policy.yaml
              sandgate policy explain policy.yaml --host api.github.com --port 443
              sandgate audit --file audit.jsonl --verdict deny

            For completions in your shell: sandgate --generate-completion-script bash, zsh or fish.
            """,
        version: Version.text,
        subcommands: [
            RunCommand.self, ServeCommand.self, SidecarCommand.self, PolicyCommand.self, AuditCommand.self,
            ListCommand.self, InspectCommand.self, TopCommand.self, AttachCommand.self, LockCommand.self,
            DetachCommand.self, RetryCommand.self, AllowCommand.self, QuestionsCommand.self, AnswerCommand.self,
            DoctorCommand.self,
        ]
    )

    /// Exit status when a sandbox could not be set up, so that it is not mistaken for the command's.
    private static let setupFailed: CInt = 125

    static func main() async {
        if CommandLine.arguments.dropFirst().elementsEqual([RootlessNetwork.attendantArgument]) {
            RootlessNetwork.attend()
        }
        // A reader that has gone is an error at write, not the end of the process that guards a sandbox.
        signal(SIGPIPE, SIG_IGN)
        // So is a limit on the size of files: the audit log counts what it cannot write.
        signal(SIGXFSZ, SIG_IGN)
        if let unknown = UnknownCommand(in: CommandLine.arguments.dropFirst(), below: Self.self) {
            Console.errorText(unknown.message)
            Glibc.exit(ExitCode.validationFailure.rawValue)
        }
        let isRun = CommandLine.arguments.dropFirst().first == RunCommand.configuration.commandName
        do {
            var command = try parseAsRoot()
            if let command = command as? any StagedCommand {
                let rest = try command.begin()
                try await rest()
            } else if var command = command as? any AsyncParsableCommand {
                try await command.run()
            } else {
                try command.run()
            }
        } catch let error where exitCode(for: error) == .failure && !(error is ExitCode) {
            Console.error("\(error)")
            Console.finish()
            Glibc.exit(isRun ? setupFailed : 1)
        } catch let error where isRun && exitCode(for: error) == .validationFailure {
            Console.errorText(fullMessage(for: error) + "\n")
            Glibc.exit(setupFailed)
        } catch {
            Console.finish()
            exit(withError: error)
        }
    }
}
