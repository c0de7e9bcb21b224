import Glibc

/// A system call that failed: what was attempted, on what, and why.
public struct SystemError: Error, Hashable, Sendable {
    /// What was attempted, as a verb: `connect`, `bind`.
    public let operation: String
    /// The error number, `errno(3)`.
    public let errno: CInt
    /// What it was attempted on, for people: an endpoint, a path. May be empty.
    public let context: String

    /// An error from its parts.
    public init(operation: String, errno: CInt, context: String = "") {
        self.operation = operation
        self.errno = errno
        self.context = context
    }

    /// The error of the system call that has just failed in this thread.
    package static func current(_ operation: String, _ context: String = "") -> SystemError {
        SystemError(operation: operation, errno: Glibc.errno, context: context)
    }
}

extension SystemError: CustomStringConvertible {
    /// `cannot connect 192.0.2.1:53: Connection refused`.
    public var description: String {
        // glibc's strerror is thread-safe since 2.32: its buffer is the thread's own.
        let reason = strerror(errno).map { String(cString: $0) } ?? "error \(errno)"
        return context.isEmpty ? "cannot \(operation): \(reason)" : "cannot \(operation) \(context): \(reason)"
    }
}
