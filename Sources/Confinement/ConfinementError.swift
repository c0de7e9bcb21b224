internal import Glibc

/// A step of the confinement that failed. The command has not been started.
public struct ConfinementError: Error, Hashable, Sendable {
    /// What could not be done, as a clause: `cannot mount /proc`.
    public let operation: String
    /// The kernel's error number.
    public let errno: CInt

    /// An error from its parts.
    public init(_ operation: String, errno: CInt) {
        self.operation = operation
        self.errno = errno
    }
}

extension ConfinementError: CustomStringConvertible {
    /// `cannot mount /proc: Operation not permitted`.
    public var description: String {
        // Of what is done here, only new processes come to EAGAIN.
        let cause = errno == EAGAIN ? "no more processes may be started (ulimit -u, pids.max)" : nil
        return "\(operation): \(cause ?? String(cString: strerror(errno)))"
    }
}
