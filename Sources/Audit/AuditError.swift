import Glibc

/// Why an audit file cannot be used.
public struct AuditError: Error, Hashable, Sendable {
    /// What is wrong.
    public enum Problem: Hashable, Sendable {
        /// A system call failed; `operation` is a verb in the infinitive.
        case system(operation: String, errno: CInt)
        /// A system call on the directory of a trail failed; `operation` is a verb in the infinitive.
        case directory(operation: String, errno: CInt)
        /// The path leads to something that is not a regular file.
        case notRegular
        /// Another process writes to the file.
        case inUse
        /// The file holds something else than audit records; nothing was written to it.
        case notAnAuditLog
    }

    /// The file, or the directory of a trail.
    public let path: String
    /// What is wrong with it.
    public let problem: Problem

    /// An error from its parts.
    public init(path: String, problem: Problem) {
        self.path = path
        self.problem = problem
    }
}

extension AuditError: CustomStringConvertible {
    /// `cannot open audit file /var/log/a.jsonl: Permission denied`.
    public var description: String {
        switch problem {
        case .system(let operation, let errno):
            "cannot \(operation) audit file \(path): \(String(cString: strerror(errno)))"
        case .directory(let operation, let errno):
            "cannot \(operation) audit directory \(path): \(String(cString: strerror(errno)))"
        case .notRegular: "cannot use \(path) as audit file: it is not a regular file"
        case .inUse: "cannot write to audit file \(path): another process writes to it"
        case .notAnAuditLog: "cannot continue audit file \(path): it holds something else than audit records"
        }
    }
}

extension AuditError {
    /// The system call that just failed.
    static func system(_ operation: String, _ path: String) -> AuditError {
        AuditError(path: path, problem: .system(operation: operation, errno: errno))
    }

    /// The system call on a directory that just failed.
    static func directory(_ operation: String, _ path: String, errno: CInt = Glibc.errno) -> AuditError {
        AuditError(path: path, problem: .directory(operation: operation, errno: errno))
    }
}
