import Glibc

/// Why the kernel would not do what a netlink message asked for.
public struct NetlinkError: Error, Hashable, Sendable {
    /// What was to be done, in words that follow "cannot": `add 192.0.2.1 to set pinned4`.
    public let operation: String
    /// The error number, see errno(3).
    public let errno: CInt
    /// Which message of a batch failed, counted from 0; `nil` when it was not one message.
    public let messageIndex: Int?
    /// What the kernel said in words (NLMSGERR_ATTR_MSG); often empty.
    public let detail: String

    /// An error from its parts.
    public init(operation: String, errno: CInt, messageIndex: Int? = nil, detail: String = "") {
        self.operation = operation
        self.errno = errno
        self.messageIndex = messageIndex
        self.detail = detail
    }
}

extension NetlinkError: CustomStringConvertible {
    /// One clause: `cannot add 192.0.2.1 to set pinned4: File exists`.
    public var description: String {
        let cause = String(cString: strerror(errno))
        return detail.isEmpty ? "cannot \(operation): \(cause)" : "cannot \(operation): \(cause) (\(detail))"
    }
}
