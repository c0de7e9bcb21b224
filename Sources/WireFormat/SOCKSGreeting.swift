/// What a client of a SOCKS proxy says first: which ways to authenticate itself it knows (RFC 1928 3).
public struct SOCKSGreeting: Hashable, Sendable {
    /// What bytes received so far say. It depends on the bytes alone, not on how they were divided.
    public enum Outcome: Hashable, Sendable {
        /// Not decided; at least this many bytes in all are needed.
        case needMore(Int)
        /// A complete greeting of version 5.
        case greeting(SOCKSGreeting)
        /// A client of version 4 or 4a, which sends no greeting but its request.
        case version4
        /// Neither version.
        case notSOCKS
        /// Begins as a greeting and breaks its format.
        case malformed(WireError)
    }

    /// Whether the client would do without authentication (method 0).
    public let offersNoAuthentication: Bool
    /// How many bytes the greeting took.
    public let length: Int

    static let version: UInt8 = 5

    /// Whether a connection that begins with `byte` is a SOCKS client's, of whatever version; no HTTP request begins so.
    public static func begins(with byte: UInt8) -> Bool { byte == version || byte == 4 }

    /// Looks at everything received so far. Bytes that follow the greeting are not looked at.
    public static func parse(_ bytes: [UInt8]) -> Outcome {
        guard let first = bytes.first else { return .needMore(2) }
        guard begins(with: first) else { return .notSOCKS }
        guard first == version else { return .version4 }
        guard bytes.count >= 2 else { return .needMore(2) }
        let methodCount = Int(bytes[1])
        guard methodCount > 0 else { return .malformed(WireError(offset: 1, problem: "no method is offered")) }
        let length = 2 + methodCount
        guard bytes.count >= length else { return .needMore(length) }
        return .greeting(SOCKSGreeting(offersNoAuthentication: bytes[2..<length].contains(0), length: length))
    }
}
