import ArgumentParser
import EgressPolicy
import FoundationEssentials
import PolicyDocument
import PolicyExchange

/// `sandgate policy import`: another tool's document as a policy.
struct PolicyImportCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "import",
        abstract: "Print another tool's network rules as a policy that allows no more.",
        usage: "sandgate policy import FORMAT FILE [--service NAME] [--job NAME] [--strict] [--json]",
        discussion: """
            FORMATS:
            \(ImportFormat.allCases.map { "  \($0.rawValue): \($0.summary)" }.joined(separator: "\n"))

            What has no equal is left out or allows less, and a comment says so where it stood. Nothing ever allows more \
            than the original. A document that the tool itself would not take is refused with file, line and column.

            The exit status is 1 when the document is refused, and with --strict when anything has no equal: then \
            nothing is printed but the notes, on standard error.

            EXAMPLES:
              sandgate policy import sandbox-runtime ~/.srt-settings.json > policy.yaml
              sandgate policy import smokescreen acl.yaml --service billing --strict
              sandgate policy import harden-runner .github/workflows/build.yml --job build
              kubectl get cnp sandbox -o json | sandgate policy import cilium -
            """
    )

    @Argument(help: "What wrote the document.", transform: Self.format)
    var format: ImportFormat

    @Argument(help: ArgumentHelp("The document; - is standard input.", valueName: "file"))
    var file: String

    @Option(help: ArgumentHelp("The service of a smokescreen ACL; without it the default.", valueName: "name"))
    var service: String?

    @Option(help: ArgumentHelp("The job of a workflow whose list is meant.", valueName: "name"))
    var job: String?

    @Flag(help: "Fail when anything has no equal.")
    var strict = false

    @Flag(help: "Print one JSON object: the policy, and the notes.")
    var json = false

    private static func format(_ text: String) throws -> ImportFormat {
        if let format = ImportFormat(rawValue: text) { return format }
        throw ValidationError("expected \(Spelling.expectation(of: ImportFormat.allCases.map(\.rawValue), for: text))")
    }

    func validate() throws {
        if service != nil, format != .smokescreen { throw ValidationError("--service is for smokescreen") }
        if job != nil, format != .hardenRunner { throw ValidationError("--job is for harden-runner") }
    }

    func run() throws {
        let name = file == "-" ? "<stdin>" : file
        let imported: PolicyImport
        do {
            imported = try format.load(
                bytes: try PolicyFile.read(file),
                file: name,
                selection: .init(service: service, job: job)
            )
        } catch let error as DocumentError {
            for problem in error.problems { Console.errorText("\(problem)\n") }
            throw ExitCode(1)
        }
        if strict, !imported.notes.isEmpty {
            for note in imported.notes {
                let path = note.path.isEmpty ? "" : "\(note.path): "
                Console.errorText(
                    "\(name):\(note.line):\(note.column): \(path)\(note.effect.rawValue): \(note.message)\n"
                )
            }
            throw ExitCode(1)
        }
        var output = StandardOutput()
        if json {
            let encoder = JSONEncoder()
            encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
            try output.line(try encoder.encode(Document(format, name, imported)))
        } else {
            try output.line(imported.yaml.utf8.dropLast())
        }
        try output.flush()
    }

    /// The members that `--json` prints.
    private struct Document: Encodable {
        struct Note: Encodable {
            let effect: String
            let path: String?
            let line: Int
            let column: Int
            let message: String
        }

        let format: String
        let file: String
        let networkPolicy: Policy
        let notes: [Note]

        init(_ format: ImportFormat, _ file: String, _ imported: PolicyImport) {
            self.format = format.rawValue
            self.file = file
            networkPolicy = imported.policy
            notes = imported.notes.map { note in
                Note(
                    effect: note.effect.rawValue,
                    path: note.path.isEmpty ? nil : note.path,
                    line: note.line,
                    column: note.column,
                    message: note.message
                )
            }
        }
    }
}
