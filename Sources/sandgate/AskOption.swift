import ArgumentParser
import PolicyDocument

/// What `--ask` and `--ask-timeout` say together.
enum AskOption {
    /// Throws what a person has to change.
    static func validate(ask: Bool, timeout: Int?, option: String = "--ask") throws {
        guard let timeout else { return }
        guard ask else { throw ValidationError("--ask-timeout needs \(option)") }
        let range = CreateRequest.Asking.range
        guard range.contains(timeout) else {
            throw ValidationError("--ask-timeout: expected seconds of \(range.lowerBound)...\(range.upperBound)")
        }
    }
}
