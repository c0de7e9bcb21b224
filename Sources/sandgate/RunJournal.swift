import Audit
import EgressCore
import EgressPolicy
import Glibc
import HostDetection
import NetPrimitives
import PolicySuggestion
import Reactor

/// What a run tells: the audit file, a line on standard error for each new refusal, the table at the end.
final class RunJournal {
    private static let flushNanoseconds: UInt64 = 200_000_000
    /// So many distinct refusals are told as they happen; the table has the rest.
    private static let maximumLines = 200
    /// Told once to who sees the first refusal happen, and may not know that the command goes on.
    private static let hint =
        "sandgate: the run goes on; Ctrl-C ends it; a table at its end has all refusals"

    private let log: AuditLog?
    private let isQuiet: Bool
    private let colour = Console.hasColour
    /// Whether the hint is still to be given.
    private var isHinting = isatty(STDERR_FILENO) == 1
    private var summary = DenialSummary()
    private var told: Set<String> = []
    /// The name of the program that is run; of its arguments nothing, which may be secret.
    private let program: String?
    /// The sandbox, if the audit file tells of earlier ones, too.
    private var sandbox: String?
    private let isContinued: Bool
    private let policyPath: String?
    private let suggestion: PendingSuggestion?
    private let detectableTool: Tool?

    init(_ plan: RunPlan) throws {
        var status = stat()
        isContinued = plan.auditPath.map { stat($0, &status) == 0 && status.st_size > 0 } ?? false
        log = try plan.auditPath.map { try AuditLog(path: $0) }
        isQuiet = plan.isQuiet
        policyPath = plan.policyPath
        detectableTool = plan.detectableTool
        program = plan.command.first.flatMap { $0.split(separator: "/").last.map(String.init) }
        suggestion = try plan.suggestionPath.map { try PendingSuggestion(path: $0, base: plan.policy) }
    }

    /// Takes one event.
    func record(_ event: AuditEvent) {
        var event = event
        if event.kind == .sandboxAttached {
            sandbox = event.sandbox
            event.detail = program.map { Observations.programPrefix + $0 }
        }
        log?.append(event)
        suggestion?.observe(event)
        guard !isQuiet else { return }
        summary.observe(event)
        guard told.count < Self.maximumLines, let line = HumanLine.text(for: event, colour: colour) else { return }
        guard told.insert(line).inserted else { return }
        Console.errorText(line + "\n")
        if isHinting, event.verdict?.action == .deny {
            isHinting = false
            Console.errorText(Self.hint + "\n")
        }
    }

    /// Keeps the file close to what has happened.
    func flushRegularly(on loop: EventLoop) {
        guard log != nil else { return }
        _ = loop.schedule(at: loop.now.advanced(byNanoseconds: Self.flushNanoseconds)) { [weak self, unowned loop] in
            self?.log?.flush()
            self?.flushRegularly(on: loop)
        }
    }

    /// Closes the file and prints the table.
    func finish() {
        log?.close()
        if let log, log.lostRecords > 0 {
            let cause = log.lastFailure.map { ": \($0)" } ?? ""
            Console.error("\(log.lostRecords) records could not be written to the audit file\(cause)")
        }
        let outcome = suggestion?.finish()
        guard !isQuiet else { return }
        let width = Console.columns ?? DenialSummary.usualWidth
        Console.errorText(summary.render(width: width, colour: colour, isWritten: suggestion?.isWritten ?? false))
        if let outcome {
            Console.error(outcome)
        } else if summary.hasSuggestions {
            Console.errorText(detectionStep + nextStep)
        }
    }

    /// A name for a policy that no file in the working directory has yet: what is copied overwrites nothing.
    private static func newPolicyName() -> String {
        let names = ["policy.yaml"] + (2...99).map { "policy-\($0).yaml" }
        // Whoever has them all is told by the command that the file is there.
        return names.first { access($0, F_OK) != 0 } ?? names[0]
    }

    /// The way on that needs no policy, for a tool whose configuration says where it goes.
    private var detectionStep: String {
        guard let tool = detectableTool else { return "" }
        return "\nTo allow the hosts that \(tool.rawValue) is configured for: add --detect to this run's options\n"
    }

    /// How to go on from what was refused, as a command to copy.
    private var nextStep: String {
        guard let log else {
            let name = Self.newPolicyName()
            return "\nTo have a policy written: sandgate run --learn --suggest \(name) -- COMMAND\n"
        }
        var words = ["sandgate policy suggest --audit", Shell.quoted(log.path)]
        if isContinued, let sandbox { words += ["--sandbox", sandbox] }
        if let policyPath, policyPath != "-" { words += ["--policy", Shell.quoted(policyPath)] }
        words += ["-o", Self.newPolicyName()]
        return "\nTo have a policy written from this record:\n  \(words.joined(separator: " "))\n"
    }
}

/// Words for a shell.
enum Shell {
    /// `word` so that a shell reads it as it is.
    static func quoted(_ word: String) -> String {
        let isPlain = word.utf8.allSatisfy { byte in
            (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(byte | 0x20)
                || (UInt8(ascii: "-")...UInt8(ascii: "9")).contains(byte) || byte == UInt8(ascii: "_")
        }
        guard !isPlain || word.isEmpty else { return word }
        return "'" + word.split(separator: "'", omittingEmptySubsequences: false).joined(separator: #"'\''"#) + "'"
    }
}

/// A policy that is to be written when a run ends.
final class PendingSuggestion {
    private let path: String
    private let base: Policy
    private let descriptor: CInt
    private var observations = Observations()
    /// Whether the file holds the policy; before it does, it is removed with this object.
    private(set) var isWritten = false

    /// Makes the file, which must not be there yet: what the command puts in its place meanwhile is not written to.
    init(path: String, base: Policy) throws(SetupError) {
        self.path = path
        self.base = base
        descriptor = try WrittenFile.create(path, unless: "remove it")
    }

    /// Without anything to go by there is no policy.
    deinit {
        if !isWritten { unlink(path) }
    }

    /// Takes one event.
    func observe(_ event: AuditEvent) {
        // As it would be read from a file: one way to look at records.
        if let line = try? AuditLine(parsing: AuditRecord(sequence: 1, event: event, previous: nil).line) {
            observations.observe(line)
        }
    }

    /// Writes the policy; gives a line to tell.
    func finish() -> String {
        guard !observations.isEmpty else { return "\(path) is not written: the command asked for nothing" }
        var options = PolicySuggester.Options()
        if base != Policy(mode: base.mode) {
            options.base = Policy(defaultAction: base.defaultAction, rules: base.rules)
        }
        options.baseName = "this run's policy"
        let suggested = PolicySuggester.suggest(from: observations, options: options, at: .current)
        do {
            try WrittenFile.write(
                suggested.yaml(source: "this run", baseName: options.baseName),
                to: descriptor,
                path
            )
            isWritten = true
            return "\(path): \(suggested.summary)"
        } catch {
            return "\(error)"
        }
    }
}
