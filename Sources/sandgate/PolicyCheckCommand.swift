import ArgumentParser
import FoundationEssentials

/// `sandgate policy check`: validate policy files.
struct PolicyCheckCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "check",
        abstract: "Validate policy files.",
        discussion: """
            Reads YAML and JSON: the bare object, one below networkPolicy:, or a whole create request. Every problem \
            is told with its file, line and column. The exit status is 0 when every file is valid, else 1.

            EXAMPLES:
              sandgate policy check policy.yaml
              sandgate policy check policies/*.yaml && git commit
              kubectl get … -o json | sandgate policy check -
              sandgate policy check --json policy.yaml | jq '.[].problems'
            """
    )

    @Argument(help: ArgumentHelp("Policy files; - is standard input.", valueName: "file"))
    var files: [String]

    @Flag(help: "Print one JSON array with an object for each file.")
    var json = false

    @Flag(name: .shortAndLong, help: "Print nothing for files that are valid.")
    var quiet = false

    private static let invalid = ExitCode(1)

    func run() throws {
        let outcomes = files.map(PolicyCheck.init(path:))
        if json {
            let encoder = JSONEncoder()
            encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
            Console.output(String(decoding: try encoder.encode(outcomes.map(\.document)), as: UTF8.self))
        } else {
            for outcome in outcomes { show(outcome) }
        }
        if outcomes.contains(where: { !$0.isValid }) { throw Self.invalid }
    }

    private func show(_ outcome: PolicyCheck) {
        for complaint in outcome.complaints { Console.errorText(complaint + "\n") }
        if !quiet, let summary = outcome.summary { Console.output(summary) }
    }
}
