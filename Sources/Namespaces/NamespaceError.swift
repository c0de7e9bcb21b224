internal import Glibc

/// A step of making or entering a namespace that the kernel refused.
public struct NamespaceError: Error, Hashable, Sendable {
    /// What could not be done, as a clause: `cannot create veth pair`.
    public let operation: String
    /// The kernel's error number.
    public let errno: CInt
    /// What the kernel said beyond the number (netlink extended acknowledgement), or empty.
    public let detail: String

    /// An error from its parts.
    public init(_ operation: String, errno: CInt, detail: String = "") {
        self.operation = operation
        self.errno = errno
        self.detail = detail
    }
}

extension NamespaceError: CustomStringConvertible {
    /// `cannot create veth pair: Operation not permitted`.
    public var description: String {
        let cause = String(cString: strerror(errno))
        return detail.isEmpty ? "\(operation): \(cause)" : "\(operation): \(cause) (\(detail))"
    }
}
