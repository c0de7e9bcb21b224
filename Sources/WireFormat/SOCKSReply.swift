/// A SOCKS5 proxy's answer to a request (RFC 1928 6).
public enum SOCKSReply: UInt8, Hashable, Sendable, CaseIterable {
    /// The connection stands.
    case succeeded = 0
    /// None of the others: the request cannot be read.
    case generalFailure = 1
    /// The policy refuses it.
    case notAllowed = 2
    /// No route leads there.
    case networkUnreachable = 3
    /// The name has no address, or the host does not answer.
    case hostUnreachable = 4
    /// The host refuses the connection.
    case connectionRefused = 5
    /// A command other than CONNECT.
    case commandNotSupported = 7
    /// Neither IPv4 nor IPv6 nor a name.
    case addressTypeNotSupported = 8

    /// The message. The bound address is 0.0.0.0 port 0: ours is of the node, and none of the sandbox's business.
    public var bytes: [UInt8] { [SOCKSGreeting.version, rawValue, 0, 1, 0, 0, 0, 0, 0, 0] }
}

extension SOCKSGreeting {
    /// The answer to a greeting: go on without authentication (RFC 1928 3).
    public static let noAuthentication: [UInt8] = [version, 0]
    /// The answer to a greeting: none of the offered methods will do.
    public static let noAcceptableMethod: [UInt8] = [version, 0xff]
    /// The answer to a client of version 4: rejected (91).
    public static let version4Rejected: [UInt8] = [0, 91, 0, 0, 0, 0, 0, 0]
}
