internal import Glibc

/// A step of the confinement that failed. The command has not been started.
public struct ConfinementError: Error, Hashable, Sendable {
    /// What could not be done, as a clause: `cannot mount /proc`.
    public let operation: String
    /// The kernel's error number.
    public let errno: CInt
    /// What to do about it, or empty.
    public let remedy: String

    /// An error from its parts.
    public init(_ operation: String, errno: CInt, remedy: String = "") {
        self.operation = operation
        self.errno = errno
        self.remedy = remedy
    }

    /// The error without what to do about it: `cannot mount /proc: Operation not permitted`.
    public var cause: String {
        // Of what is done here, only new processes come to EAGAIN.
        let reason = errno == EAGAIN ? "no more processes may be started (ulimit -u, pids.max)" : nil
        return "\(operation): \(reason ?? String(cString: strerror(errno)))"
    }
}

extension ConfinementError: CustomStringConvertible {
    /// The cause, and in parentheses the remedy.
    public var description: String { remedy.isEmpty ? cause : "\(cause) (\(remedy))" }
}
