import ArgumentParser
import Audit
import EgressPolicy
import FoundationEssentials
import NetPrimitives
import PolicyDocument
import Reactor

/// `sandgate policy test`: hold policies to what is expected of them.
struct PolicyTestCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "test",
        abstract: "Hold policies to the expectations that are kept beside them.",
        discussion: """
            Expectations stand in the policy's file, beside networkPolicy, or in a file of their own next to it, \
            NAME.expect.yaml for NAME.yaml:

              networkPolicy:
                egress:
                  - {action: allow, target: "*.example.com", ports: [443]}
              expect:
                allow: [api.example.com]
                deny:  [api.example.com:80, example.com, "192.0.2.1:22/udp"]

            A destination is HOST, HOST:PORT or HOST:PORT/udp, 443 and tcp if left out, or a mapping with host, ip, \
            port and protocol: a name together with an address is a connection that carries the name to that \
            address. A name that would not be resolved counts as denied.

            Of a policy with a set-up phase, expect speaks of what the lock leaves, and expect: {setup: {allow: […], \
            deny: […]}} of the phase.

            The exit status is 0 when every expectation is met, 1 when one is not, a file is not valid, or there are \
            no expectations.

            EXAMPLES:
              sandgate policy test policy.yaml
              sandgate policy test new.yaml --audit audit.jsonl   # what would differ?
              sandgate policy presets github | sandgate policy test -
            """
    )

    @Argument(help: ArgumentHelp("Policy files; - is standard input.", valueName: "file"))
    var files: [String]

    @Option(
        help: ArgumentHelp(
            "Also expect what this audit file recorded: what was allowed then, and what a policy denied then.",
            valueName: "file"
        )
    )
    var audit: String?

    @Flag(help: "Print one JSON array with an object for each expectation.")
    var json = false

    @Flag(name: .shortAndLong, help: "Print nothing for files that do what is expected.")
    var quiet = false

    private static let failed = ExitCode(1)

    func run() throws {
        var results: [PolicyTest] = []
        for file in files { results.append(try PolicyTest(path: file, audit: audit)) }
        if json {
            let encoder = JSONEncoder()
            encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
            Console.output(String(decoding: try encoder.encode(results.flatMap(\.document)), as: UTF8.self))
        } else {
            for result in results {
                for failure in result.failures { Console.errorText(failure + "\n") }
                if !quiet, result.failures.isEmpty { Console.output(result.summary) }
            }
        }
        if results.contains(where: { !$0.failures.isEmpty }) { throw Self.failed }
    }
}

/// One policy and what became of the expectations beside it.
struct PolicyTest {
    private struct Outcome {
        let file: String
        let line: Int
        let text: String
        let expected: RuleAction
        let verdict: Verdict
        /// Whether it happened, rather than being expected by who wrote the policy.
        var isRecorded = false
        var actual: RuleAction { verdict.isReportOnly ? .deny : verdict.action }
        var isMet: Bool { actual == expected }
    }

    private let file: String
    private let outcomes: [Outcome]

    /// Reads the policy and its expectations, and judges each of them now.
    init(path: String, audit: String?) throws {
        let name = path == "-" ? "<stdin>" : path
        file = name
        let bytes = try PolicyFile.read(path)
        let now = WallTime.current
        do {
            let document = try PolicyDocument.load(bytes: bytes, format: .automatic, file: name, now: now)
            let inSetup = CompiledPolicy(document.policy)
            let locked = inSetup.locked()
            var outcomes: [Outcome] = []
            for (file, bytes) in [(name, bytes)] + (try Self.companion(of: path).map { [$0] } ?? []) {
                outcomes += try PolicyExpectation.load(bytes: bytes, format: .automatic, file: file).map {
                    if $0.isOfSetup, document.policy.setup == nil {
                        throw SetupError("\(file):\($0.line): expect.setup: the policy has no set-up phase")
                    }
                    let verdict = $0.verdict(of: $0.isOfSetup ? inSetup : locked, at: now)
                    return Outcome(file: file, line: $0.line, text: $0.text, expected: $0.action, verdict: verdict)
                }
            }
            if let audit {
                outcomes += try RecordedDestinations(path: audit).destinations.map {
                    // What was allowed may have been so in set-up alone; what was denied may have been so after it.
                    let verdict = $0.verdict(of: $0.action == .allow ? inSetup : locked, at: now)
                    return Outcome(
                        file: audit,
                        line: $0.line,
                        text: $0.text,
                        expected: $0.action,
                        verdict: verdict,
                        isRecorded: true
                    )
                }
            }
            self.outcomes = outcomes
        } catch let error as DocumentError {
            throw SetupError(error.problems.map(\.description).joined(separator: "\n"))
        }
        if outcomes.isEmpty, audit == nil {
            throw SetupError("\(name): no expectations: write expect: {allow: […], deny: […]} beside networkPolicy")
        }
    }

    /// `NAME.expect.yaml` beside `NAME.yaml`, if there is one.
    private static func companion(of path: String) throws -> (String, [UInt8])? {
        for suffix in [".yaml", ".yml", ".json"] where path.hasSuffix(suffix) && !path.hasSuffix(".expect" + suffix) {
            let companion = path.dropLast(suffix.count) + ".expect" + suffix
            guard FileManager.default.fileExists(atPath: String(companion)) else { continue }
            return (String(companion), try PolicyFile.read(String(companion)))
        }
        return nil
    }

    /// A line for each expectation that is not met.
    var failures: [String] {
        outcomes.filter { !$0.isMet }.map { outcome in
            let rule = outcome.verdict.rule.map { " by \($0.place)" } ?? ""
            let report = outcome.verdict.isReportOnly ? ", but for report mode" : ""
            let told = { (action: RuleAction) in action == .allow ? "allowed" : "denied" }
            let why = "\(told(outcome.actual))\(rule) (\(outcome.verdict.reason.rawValue))\(report)"
            let what =
                outcome.isRecorded
                ? "\(outcome.text) was \(told(outcome.expected)), and would be"
                : "expected to \(outcome.expected.rawValue) \(outcome.text):"
            return "\(outcome.file):\(outcome.line): \(what) \(why)"
        }
    }

    /// One line about a policy that does what is expected.
    var summary: String {
        "\(file): \(outcomes.count.counted("expectation")) met"
    }

    /// The outcome for a script.
    var document: [Document] {
        outcomes.map {
            Document(
                file: $0.file,
                line: $0.line,
                destination: $0.text,
                expected: $0.expected.rawValue,
                verdict: $0.actual.rawValue,
                reason: $0.verdict.reason.rawValue,
                rule: $0.verdict.rule?.place,
                met: $0.isMet
            )
        }
    }

    /// The members that `--json` prints for each expectation.
    struct Document: Encodable {
        let file: String
        let line: Int
        let destination: String
        let expected: String
        let verdict: String
        let reason: String
        let rule: String?
        let met: Bool
    }
}
