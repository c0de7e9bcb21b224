import EgressPolicy
import NetPrimitives
import PolicyDocument
import Reactor

/// What became of checking one file.
struct PolicyCheck {
    private let file: String
    private let policy: Policy?
    /// What is wrong, in the order of the file; empty when the file is valid.
    let problems: [Problem]
    /// What is valid and probably not meant.
    let warnings: [Problem]
    /// Why the file could not be read.
    private let failure: SetupError?

    /// Reads and checks the file at `path`; `-` is standard input.
    init(path: String) {
        file = path == "-" ? "<stdin>" : path
        do {
            let document = try PolicyDocument.load(
                bytes: try PolicyFile.read(path),
                format: .automatic,
                file: file,
                now: .current
            )
            (policy, problems, warnings, failure) = (document.policy, [], document.warnings, nil)
        } catch let error as DocumentError {
            (policy, problems, warnings, failure) = (nil, error.problems, [], nil)
        } catch {
            let failure = error as? SetupError ?? SetupError("cannot read \(path): \(error)")
            (policy, problems, warnings, self.failure) = (nil, [], [], failure)
        }
    }

    /// Whether the file holds a valid policy.
    var isValid: Bool { policy != nil }

    /// The lines about it on standard error.
    var complaints: [String] {
        problems.map(\.description) + warnings.map { "warning: \($0)" } + (failure.map { ["sandgate: \($0)"] } ?? [])
    }

    /// One line about a valid file.
    var summary: String? {
        guard let policy else { return nil }
        let mode = policy.mode == .report ? ", report mode" : ""
        let setup = policy.setup.map { ", \($0.rules.count) more in set-up" }
        return
            "\(file): valid: \(policy.rules.count.counted("rule"))\(setup ?? ""), default \(policy.defaultAction.rawValue)\(mode)"
    }

    /// The outcome for a script.
    var document: Document {
        var told = problems.map(Document.Finding.init)
        if let failure { told.append(Document.Finding(message: failure.description)) }
        return Document(
            file: file,
            valid: isValid,
            rules: policy?.rules.count,
            setupRules: policy?.setup?.rules.count,
            defaultAction: policy?.defaultAction.rawValue,
            mode: policy?.mode.rawValue,
            problems: told,
            warnings: warnings.map(Document.Finding.init)
        )
    }

    /// The members that `--json` prints.
    struct Document: Encodable {
        struct Finding: Encodable {
            var path: String?
            var line: Int?
            var column: Int?
            var message: String

            init(message: String) {
                self.message = message
            }

            init(_ problem: Problem) {
                path = problem.path.isEmpty ? nil : problem.path
                line = problem.line
                column = problem.column
                message = problem.message
            }
        }

        let file: String
        let valid: Bool
        let rules: Int?
        let setupRules: Int?
        let defaultAction: String?
        let mode: String?
        let problems: [Finding]
        let warnings: [Finding]
    }
}
