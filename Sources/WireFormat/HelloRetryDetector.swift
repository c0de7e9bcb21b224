/// Tells from a TLS server's first bytes whether it asks its client for another ClientHello (HelloRetryRequest, RFC 8446
/// 4.1.4): a ServerHello whose random is a certain one.
///
/// The outcome depends on the bytes alone, not on how they were divided over calls or records.
public struct HelloRetryDetector: Hashable, Sendable, Codable {
    /// What the bytes so far say.
    public enum Outcome: Hashable, Sendable {
        /// Not decided.
        case needMore
        /// Another ClientHello comes next, in the clear.
        case retry
        /// Anything else: no ClientHello in the clear is answered any more.
        case other
    }

    /// SHA-256 of "HelloRetryRequest" (RFC 8446 4.1.3).
    static let random: [UInt8] = [
        0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c, 0x02, 0x1e, 0x65, 0xb8, 0x91,
        0xc2, 0xa2, 0x11, 0x16, 0x7a, 0xbb, 0x8c, 0x5e, 0x07, 0x9e, 0x09, 0xe2, 0xc8, 0xa8, 0x33, 0x9c,
    ]
    private static let headerLength = 5
    private static let alert: UInt8 = 21
    private static let handshake: UInt8 = 22
    private static let serverHello: UInt8 = 2
    /// Where the random begins: behind the message's type and length, and the version.
    private static let randomStart = 6

    /// How much of the record's header is missing.
    private var headerLeft = Self.headerLength
    private var kind: UInt8 = 0
    /// How much of the record's fragment is missing.
    private var fragmentLeft = 0
    /// How much of the handshake message has been looked at.
    private var position = 0

    /// Before the first byte.
    public init() {}

    /// Looks at what came next; not to be called again once it is decided.
    public mutating func look(at bytes: UnsafeRawBufferPointer) -> Outcome {
        for byte in bytes {
            let outcome = headerLeft > 0 ? takeHeader(byte) : takeFragment(byte)
            if outcome != .needMore { return outcome }
        }
        return .needMore
    }

    private mutating func takeHeader(_ byte: UInt8) -> Outcome {
        switch Self.headerLength - headerLeft {
        case 0:
            // A warning may come before the answer (unrecognized_name, RFC 6066 3).
            guard byte == Self.handshake || byte == Self.alert else { return .other }
            kind = byte
        case 1:
            guard byte == 3 else { return .other }
        case 3:
            fragmentLeft = Int(byte) << 8
        case 4:
            fragmentLeft |= Int(byte)
            guard fragmentLeft > 0 else { return .other }
        default:
            break
        }
        headerLeft -= 1
        return .needMore
    }

    private mutating func takeFragment(_ byte: UInt8) -> Outcome {
        fragmentLeft -= 1
        if fragmentLeft == 0 { headerLeft = Self.headerLength }
        guard kind == Self.handshake else { return .needMore }
        defer { position += 1 }
        if position == 0 { return byte == Self.serverHello ? .needMore : .other }
        let index = position - Self.randomStart
        guard index >= 0 else { return .needMore }
        guard byte == Self.random[index] else { return .other }
        return index == Self.random.count - 1 ? .retry : .needMore
    }
}
