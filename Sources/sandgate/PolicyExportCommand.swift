import ArgumentParser
import FoundationEssentials
import PolicyDocument
import PolicyExchange
import Reactor

/// `sandgate policy export`: a policy in another tool's form.
struct PolicyExportCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "export",
        abstract: "Print a policy in another tool's form, as far as that can say it.",
        usage: "sandgate policy export FORMAT FILE [--ignore-ports] [--strict] [--json]",
        discussion: """
            FORMATS:
            \(ExportFormat.allCases.map { "  \($0.rawValue): \($0.summary)" }.joined(separator: "\n"))

            What the form cannot say allows less there, and is told on standard error. Where more is allowed, that is \
            told as well: OpenSandbox has no guard ranges, so a wide block or defaultAction: allow is also for private \
            addresses; and with --ignore-ports a rule that is limited to some ports is written for all of them, since \
            its rules have none.

            The exit status is 1 when the policy is not valid, and with --strict when there was anything to tell: then \
            nothing is printed.

            EXAMPLES:
              sandgate policy export opensandbox policy.yaml > network-policy.json
              sandgate policy export kubernetes policy.yaml | kubectl apply -n box -f -
              sandgate policy export opensandbox policy.yaml --json | jq '.notes'
            """
    )

    @Argument(help: "The form.", transform: Self.format)
    var format: ExportFormat

    @Argument(help: ArgumentHelp("The policy; - is standard input.", valueName: "file"))
    var file: String

    @Flag(help: "opensandbox: write rules that are limited to ports or a protocol for all of them.")
    var ignorePorts = false

    @Flag(help: "Fail when anything cannot be said.")
    var strict = false

    @Flag(help: "Print one JSON object: the document as a string, and the notes.")
    var json = false

    private static func format(_ text: String) throws -> ExportFormat {
        if let format = ExportFormat(rawValue: text) { return format }
        throw ValidationError("expected \(Spelling.expectation(of: ExportFormat.allCases.map(\.rawValue), for: text))")
    }

    func validate() throws {
        if ignorePorts, format != .openSandbox { throw ValidationError("--ignore-ports is for opensandbox") }
    }

    func run() throws {
        let policy = try PolicyFile.load(file).policy
        let exported = format.write(policy, at: .current, ignoresPorts: ignorePorts)
        let isRefused = strict && !exported.notes.isEmpty
        if !json || isRefused {
            for note in exported.notes { Console.errorText("\(file == "-" ? "<stdin>" : file): \(note.text)\n") }
        }
        if isRefused { throw ExitCode(1) }
        var output = StandardOutput()
        if json {
            let encoder = JSONEncoder()
            encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
            try output.line(try encoder.encode(Document(format, exported)))
        } else {
            try output.line(exported.document.utf8.dropLast())
        }
        try output.flush()
    }

    /// The members that `--json` prints.
    private struct Document: Encodable {
        struct Note: Encodable {
            let effect: String
            let path: String
            let message: String
        }

        let format: String
        let document: String
        let notes: [Note]

        init(_ format: ExportFormat, _ exported: PolicyExport) {
            self.format = format.rawValue
            document = exported.document
            notes = exported.notes.map { Note(effect: $0.effect.rawValue, path: $0.path, message: $0.message) }
        }
    }
}
