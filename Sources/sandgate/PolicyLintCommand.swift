import ArgumentParser
import EgressPolicy
import FoundationEssentials
import NetPrimitives
import PolicyDocument
import Reactor

/// `sandgate policy lint`: what a reviewer should look at in policies that are valid.
struct PolicyLintCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "lint",
        abstract: "Find rules that never decide, have expired, or allow more than is meant.",
        usage: "sandgate policy lint FILE… [--audit FILE…] [--fail-on SEVERITY] [--json]",
        discussion: """
            A rule is called shadowed only when earlier rules cover it wholly, one alone or several together, so that it \
            can be removed without any difference to what is allowed. With --audit, rules that match nothing that was recorded are named.

            Each finding has a severity and a code: error (shadowed-rule with the other action, invalid-policy), \
            warning (shadowed-rule, duplicate-rule, expired-rule, public-suffix, whole-internet, broad-addresses, \
            wide-ports, guard-range-closed, opens-guard-range of metadata services, no-effect, default-allow, \
            long-setup, setup-ended), note \
            (covered-rule, expires-soon, opens-guard-range, report-mode, unmatched-rule).

            The exit status is 1 when there is a finding of the severity of --fail-on or a greater one, else 0.

            EXAMPLES:
              sandgate policy lint policy.yaml
              sandgate policy lint policies/*.yaml --fail-on error
              sandgate policy lint policy.yaml --audit audit.jsonl --fail-on note
              sandgate policy lint --json policy.yaml | jq -r '.[].code'
            """
    )

    @Argument(help: ArgumentHelp("Policy files; - is standard input.", valueName: "file"))
    var files: [String]

    @Option(
        parsing: .upToNextOption,
        help: ArgumentHelp("Name rules that match nothing in these audit files.", valueName: "file")
    )
    var audit: [String] = []

    @Option(help: ArgumentHelp("The least severity that is a failure: error, warning or note.", valueName: "severity"))
    var failOn: SeverityOption = .warning

    @Option(help: ArgumentHelp("Name rules that expire within so many days.", valueName: "days"))
    var expiresWithin: Int64 = 14

    @Flag(help: "Print one JSON array with an object for each finding.")
    var json = false

    private static let found = ExitCode(1)

    func validate() throws {
        guard (0...36500).contains(expiresWithin) else {
            throw ValidationError("--expires-within \(expiresWithin): expected 0 to 36500 days")
        }
    }

    func run() throws {
        let recorded = try audit.map { try RecordedDestinations(path: $0) }
        var told: [Document] = []
        var isFailure = false
        for file in files {
            let name = file == "-" ? "<stdin>" : file
            for finding in try findings(in: file, name, recorded) {
                told.append(Document(name, finding))
                if finding.severity >= failOn.severity { isFailure = true }
            }
        }
        if json {
            let encoder = JSONEncoder()
            encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
            Console.output(String(decoding: try encoder.encode(told), as: UTF8.self))
        } else {
            for finding in told { Console.output(finding.text) }
        }
        if isFailure { throw Self.found }
    }

    private func findings(in file: String, _ name: String, _ recorded: [RecordedDestinations]) throws -> [LintFinding] {
        let now = WallTime.current
        let bytes = try PolicyFile.read(file)
        let document: PolicyDocument
        do {
            document = try PolicyDocument.load(bytes: bytes, format: .automatic, file: name, now: now)
        } catch {
            return error.problems.map {
                let place = PolicyDocument.Place(line: $0.line, column: $0.column, path: $0.path)
                return LintFinding(.invalidPolicy, .error, place, $0.message, advice: "see sandgate policy check")
            }
        }
        let policy = CompiledPolicy(document.policy.unphased)
        let matched = recorded.reduce(into: Set<Int>()) { $0.formUnion($1.rules(of: policy, at: now)) }
        return document.lint(at: now, expiringWithin: expiresWithin * 86400, matched: audit.isEmpty ? nil : matched)
    }

    /// A finding, as `--json` prints it.
    private struct Document: Encodable {
        let file: String
        let line: Int
        let column: Int
        let path: String?
        let rule: Int?
        let code: String
        let severity: String
        let message: String
        let advice: String
        let coveredBy: [String]?

        init(_ file: String, _ finding: LintFinding) {
            self.file = file
            line = finding.place.line
            column = finding.place.column
            path = finding.place.path.isEmpty ? nil : finding.place.path
            rule = finding.rule
            code = finding.code.rawValue
            severity = finding.severity.rawValue
            message = finding.message
            advice = finding.advice
            coveredBy = finding.coveredBy.isEmpty ? nil : finding.coveredBy
        }

        /// `FILE:LINE:COLUMN: SEVERITY: PATH: MESSAGE; ADVICE [CODE]`, as compilers have it.
        var text: String {
            let subject = path.map { "\($0): " } ?? ""
            return "\(file):\(line):\(column): \(severity): \(subject)\(message); \(advice) [\(code)]".inOneLine
        }
    }
}

/// The values of `--fail-on`.
enum SeverityOption: String, ExpressibleByArgument, CaseIterable {
    case error
    case warning
    case note

    var severity: LintFinding.Severity {
        switch self {
        case .error: .error
        case .warning: .warning
        case .note: .note
        }
    }
}
