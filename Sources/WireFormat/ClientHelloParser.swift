/// Finds a ClientHello at the start of a stream, over any number of TLS records and any split of the stream (RFC 8446 5.1).
///
/// The outcome depends on the bytes alone: bytes are looked at once, in order, and the first that breaks the format
/// decides, however they were divided over calls.
public struct ClientHelloParser {
    /// What the bytes so far say.
    public enum Outcome: Hashable, Sendable {
        /// Not decided; at least this many bytes in all are needed.
        case needMore(Int)
        /// A complete, well-formed ClientHello.
        case hello(ClientHello)
        /// Not TLS.
        case notTLS
        /// Begins as TLS does and breaks its format.
        case malformed(WireError)
    }

    /// The most bytes of a handshake message: with headers it fits what is peeked at.
    static let messageLimit = 64 * 1024 - 64
    /// The most bytes of a record (RFC 8446 5.1).
    private static let recordLimit = 1 << 14
    private static let recordHeaderLength = 5
    private static let messageHeaderLength = 4

    /// The handshake message so far, without record headers.
    private var message: [UInt8] = []
    /// How far the stream has been read.
    private var position = 0
    /// Where the current record's fragment ends; equal to `position` when a record header comes next.
    private var fragmentEnd = 0

    /// Before the first byte.
    public init() {}

    /// Looks at everything received so far; each call must pass the bytes of the call before and any number more.
    public mutating func parse(_ bytes: [UInt8]) -> Outcome {
        guard let first = bytes.first else { return .needMore(1) }
        guard first == Self.handshakeRecord else { return Self.judgeOther(bytes) }
        do throws(WireError) {
            while true {
                if position == fragmentEnd {
                    guard try readRecordHeader(bytes) else {
                        return .needMore(max(bytes.count + 1, atLeastNeeded()))
                    }
                }
                try readFragment(bytes)
                if let length = messageLength, message.count == length {
                    return .hello(try ClientHello(handshake: message, length: position))
                }
                guard position == fragmentEnd else { return .needMore(max(bytes.count + 1, atLeastNeeded())) }
            }
        } catch {
            return .malformed(error)
        }
    }

    private static let changeOfCipherRecord: UInt8 = 20
    private static let alertRecord: UInt8 = 21
    private static let handshakeRecord: UInt8 = 22

    /// A stream that does not begin with a handshake record: TLS all the same if a server may take it for that.
    private static func judgeOther(_ bytes: [UInt8]) -> Outcome {
        switch bytes[0] {
        case changeOfCipherRecord, alertRecord: judgeRecordInFront(bytes)
        case 0x80...: judgeSSLv2(bytes)
        default: .notTLS
        }
    }

    /// An alert, or a change of cipher, in the clear: servers skip a warning that comes before the ClientHello (Go's crypto/tls,
    /// in a record of whatever version below 16.0; BoringSSL). Of other protocols none has been seen that begins with such
    /// six bytes.
    private static func judgeRecordInFront(_ bytes: [UInt8]) -> Outcome {
        let isAlert = bytes[0] == alertRecord
        let length = recordHeaderLength + 1
        for (index, byte) in bytes.prefix(length).enumerated() {
            let fits =
                switch index {
                case 1: byte < 16
                case 3: byte == 0
                case 4: byte == (isAlert ? 2 : 1)
                // A warning or a fatal alert (RFC 8446 6); the one value of a change of cipher.
                case 5: byte == 1 || isAlert && byte == 2
                default: true
                }
            guard fits else { return .notTLS }
        }
        guard bytes.count >= length else { return .needMore(length) }
        return .malformed(WireError(offset: 0, problem: "another record before the ClientHello"))
    }

    /// An SSLv2 ClientHello (RFC 5246 E.2), which old servers understand and which hides its name in another format.
    private static func judgeSSLv2(_ bytes: [UInt8]) -> Outcome {
        guard bytes.count >= 3 else { return .needMore(3) }
        return bytes[2] == 1 ? .malformed(WireError(offset: 0, problem: "an SSLv2 ClientHello")) : .notTLS
    }
}

// MARK: - Records

extension ClientHelloParser {
    /// Reads one record header. Each byte is looked at as soon as it is there, so that what cannot become TLS is known
    /// before more is waited for.
    /// - Returns: false when it is not complete.
    private mutating func readRecordHeader(_ bytes: [UInt8]) throws(WireError) -> Bool {
        let header = bytes.dropFirst(position).prefix(Self.recordHeaderLength)
        for (index, byte) in header.enumerated() {
            switch index {
            case 0 where byte != Self.handshakeRecord:
                throw WireError(offset: position, problem: "another record before the end of the ClientHello")
            case 1 where byte != 3, 2 where byte > 4:
                throw WireError(offset: position + index, problem: "not a record version of TLS")
            default:
                continue
            }
        }
        guard header.count == Self.recordHeaderLength else { return false }
        let length = Int(header[position + 3]) << 8 | Int(header[position + 4])
        guard length > 0 else { throw WireError(offset: position + 3, problem: "an empty handshake record") }
        guard length <= Self.recordLimit else {
            throw WireError(offset: position + 3, problem: "a record of more than 16384 bytes")
        }
        position += Self.recordHeaderLength
        fragmentEnd = position + length
        if let messageLength { try checkFragment(messageLength) }
        return true
    }

    /// Reads what is there of the current record's fragment.
    private mutating func readFragment(_ bytes: [UInt8]) throws(WireError) {
        while message.count < Self.messageHeaderLength, position < min(fragmentEnd, bytes.count) {
            message.append(bytes[position])
            position += 1
            guard message[0] == 1 else {
                throw WireError(offset: position - 1, problem: "another handshake message before the ClientHello")
            }
            guard let messageLength else { continue }
            guard messageLength <= Self.messageLimit else {
                throw WireError(offset: position - 3, problem: "a ClientHello of more than 64 KiB")
            }
            try checkFragment(messageLength)
        }
        let end = min(fragmentEnd, bytes.count)
        guard position < end else { return }
        message += bytes[position..<end]
        position = end
    }

    /// No record may reach past the end of the message: a client has nothing else to say yet.
    private func checkFragment(_ messageLength: Int) throws(WireError) {
        guard message.count + (fragmentEnd - position) <= messageLength else {
            throw WireError(offset: fragmentEnd, problem: "bytes follow the ClientHello in its record")
        }
    }

    /// The length of the whole message, its header included, once known.
    private var messageLength: Int? {
        guard message.count >= Self.messageHeaderLength else { return nil }
        return Self.messageHeaderLength + Int(message[1]) << 16 + Int(message[2]) << 8 + Int(message[3])
    }

    /// How many bytes of the stream are needed at the least: what is missing of the message may come in one record.
    private func atLeastNeeded() -> Int {
        let missing = (messageLength ?? Self.messageHeaderLength) - message.count
        let inRecord = fragmentEnd - position
        guard missing > inRecord else { return position + missing }
        return position + missing + Self.recordHeaderLength
    }
}
