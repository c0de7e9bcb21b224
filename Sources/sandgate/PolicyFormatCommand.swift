import ArgumentParser
import FoundationEssentials
import NetPrimitives
import PolicyDocument
import Reactor

/// `sandgate policy fmt`: policies in the form that reviewers get used to.
struct PolicyFormatCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "fmt",
        abstract: "Write policies in one form, with their comments.",
        usage: "sandgate policy fmt FILE… [--check | --stdout] [--json]",
        discussion: """
            In YAML, rules in braces on one line get their keys in order and even spacing; targets, actions and \
            protocols get their canonical spelling, and lines lose the blanks at their end. Comments stay as they are, \
            and rules over several lines keep the order of their lines. JSON is laid out anew. What the policy means \
            is compared before a file is written, which happens in one step. Files that are as they should be are not \
            touched; the names of the others are printed. What is left as it is, though it is not in this form, is named on \
            standard error, with its lines.

            The exit status is 1 when a file is not valid, cannot be written, or is left as a whole since it would mean \
            something else, and with --check when a file would change; else 0.

            EXAMPLES:
              sandgate policy fmt policy.yaml
              sandgate policy fmt --check policies/*.yaml
              sandgate policy fmt --stdout - < policy.yaml
              sandgate policy fmt --check --json policies/*.yaml | jq '.[].differs'
            """
    )

    @Argument(help: ArgumentHelp("Policy files; - is standard input, with --check or --stdout.", valueName: "file"))
    var files: [String]

    @Flag(help: "Write nothing: name the files that would change, and show how.")
    var check = false

    @Flag(help: "Print the formatted text instead of writing the file.")
    var stdout = false

    @Flag(help: "Print one JSON array with an object for each file.")
    var json = false

    private static let wouldChange = ExitCode(1)

    func validate() throws {
        if check, stdout { throw ValidationError("--check and --stdout: only one of them is accepted") }
        if stdout, json { throw ValidationError("--stdout and --json: only one of them is accepted") }
        if stdout, files.count != 1 { throw ValidationError("--stdout: expected one file") }
        if files.contains("-"), !check, !stdout {
            throw ValidationError("standard input cannot be written back: say --check or --stdout")
        }
    }

    func run() throws {
        let outcomes = files.map(outcome)
        if json {
            let encoder = JSONEncoder()
            encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
            Console.output(String(decoding: try encoder.encode(outcomes), as: UTF8.self))
        } else {
            for outcome in outcomes { try show(outcome) }
        }
        guard outcomes.allSatisfy({ $0.isSuccess(isCheck: check) }) else { throw Self.wouldChange }
    }

    /// Formats a file, and writes it where that is asked for. What is wrong with it is no reason not to look at the others.
    private func outcome(_ file: String) -> Outcome {
        var outcome = Outcome(file: file == "-" ? "<stdin>" : file)
        do {
            let bytes = try PolicyFile.read(file)
            let formatted = try PolicyFormatter.format(
                bytes: bytes,
                format: .automatic,
                file: outcome.file,
                now: .current
            )
            outcome.left = formatted.left
            outcome.text = formatted.bytes
            outcome.differs = formatted.bytes != bytes
            guard outcome.differs, !stdout else { return outcome }
            if check {
                outcome.changes = Self.changes(bytes, formatted.bytes)
            } else {
                try ReplacedFile.write(formatted.bytes, to: file)
            }
        } catch let error as DocumentError {
            outcome.problems = error.problems.map(\.description)
        } catch {
            outcome.problems = ["sandgate: \(error)"]
        }
        return outcome
    }

    private func show(_ outcome: Outcome) throws {
        for problem in outcome.problems { Console.errorText(problem + "\n") }
        for left in outcome.left { Console.error("\(outcome.file): left as \(left.phrase)") }
        if stdout, let text = outcome.text {
            var output = StandardOutput()
            try output.line(text.last == UInt8(ascii: "\n") ? text.dropLast() : text[...])
            try output.flush()
        } else if outcome.differs, outcome.problems.isEmpty {
            Console.output(outcome.file)
            for change in outcome.changes { Console.output("  \(change.line) \(change.sign) \(change.text)") }
        }
    }

    /// The lines that change, with the number that each has in its text.
    private static func changes(_ old: [UInt8], _ new: [UInt8]) -> [Change] {
        let (old, new) = (lines(of: old), lines(of: new))
        let changes = new.difference(from: old)
        var (removed, inserted): (Set<Int>, Set<Int>) = ([], [])
        for case .remove(let offset, _, _) in changes { removed.insert(offset) }
        for case .insert(let offset, _, _) in changes { inserted.insert(offset) }
        var shown: [Change] = []
        var (left, right) = (0, 0)
        while left < old.count || right < new.count {
            if removed.contains(left) {
                shown.append(Change(line: left + 1, sign: "-", text: old[left]))
                left += 1
            } else if inserted.contains(right) {
                shown.append(Change(line: right + 1, sign: "+", text: new[right]))
                right += 1
            } else {
                (left, right) = (left + 1, right + 1)
            }
        }
        return shown
    }

    /// Made safe for a terminal: a file may hold anything.
    private static func lines(of bytes: [UInt8]) -> [String] {
        bytes.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false).map { line in
            String(decoding: line, as: UTF8.self).unicodeScalars.map { scalar in
                scalar.properties.generalCategory == .control ? scalar.escaped(asASCII: true) : String(scalar)
            }
            .joined()
        }
    }
}

extension PolicyFormatCommand {
    /// A line that goes (`-`), with its number in the old text, or comes (`+`), with that in the new one.
    private struct Change: Encodable {
        let line: Int
        let sign: String
        let text: String
    }

    /// What became of one file.
    private struct Outcome: Encodable {
        let file: String
        /// Whether the text is not the formatted one.
        var differs = false
        /// The lines that would change; only with `--check`.
        var changes: [Change] = []
        var left: [PolicyFormatter.Left] = []
        var problems: [String] = []
        /// The formatted text.
        var text: [UInt8]?

        private enum CodingKeys: CodingKey {
            case file, differs, changes, left, problems
        }

        /// Whether the file is as it should be, now.
        func isSuccess(isCheck: Bool) -> Bool {
            problems.isEmpty && !left.contains { $0.kind == .text } && !(isCheck && differs)
        }
    }
}

extension PolicyFormatter.Left {
    private static let shownLines = 5

    /// `they are: the order of keys in rules over several lines (lines 3, 7)`.
    fileprivate var phrase: String {
        switch kind {
        case .text: "it is: formatted, it would mean something else"
        case .blanks: "they are: blanks at the end of lines, of which some belong to a text (\(places))"
        case .order: "it is: the order of keys in rules that do not stand in braces on one line (\(places))"
        case .spelling: "they are: names and words that are not where they should be found (\(places))"
        }
    }

    private var places: String {
        let shown = lines.prefix(Self.shownLines).map { "\($0)" }.joined(separator: ", ")
        let more = lines.count > Self.shownLines ? " and \(lines.count - Self.shownLines) more" : ""
        return (lines.count == 1 ? "line " : "lines ") + shown + more
    }
}
