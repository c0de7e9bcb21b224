/// Finds the end of a message body in the bytes of a connection and checks its framing on the way; the bytes themselves
/// are passed on unchanged, so the framing must be one that nobody reads in another way (RFC 9112 7.1): chunk extensions,
/// padded sizes and bare line feeds are refused.
public struct HTTPBodyScanner: Hashable, Sendable {
    private enum State: Hashable {
        case complete
        /// Content with so many bytes left.
        case content(UInt64)
        case untilClose
        /// In the hexadecimal size of a chunk.
        case size(UInt64, digits: Int)
        /// After the carriage return of a size line.
        case sizeEnd(UInt64)
        /// In a chunk with so many bytes left.
        case chunk(UInt64)
        /// Before the carriage return that follows a chunk.
        case chunkEnd
        /// Before the line feed that follows a chunk.
        case chunkLineFeed
        case trailers
    }

    /// The most bytes of a trailer section.
    private static let trailerLimit = 8 * 1024
    /// The most digits of a chunk's size: what any integer type holds that programs count in.
    private static let digitLimit = 15
    /// Fields that would change what was judged if someone merged the trailers into the head (RFC 9110 6.5.1).
    private static let refusedTrailers: Set<String> = [
        "host", "content-length", "transfer-encoding", "connection", "upgrade", "te", "trailer", "expect",
        "proxy-connection", "keep-alive",
    ]

    private var state: State
    private var consumed = 0
    private var trailerLength = 0
    private var trailerLine: [UInt8] = []

    /// Before the first byte of a body that is framed so.
    public init(_ framing: HTTPFraming) {
        state =
            switch framing {
            case .none, .length(0): .complete
            case .length(let count): .content(count)
            case .chunked: .size(0, digits: 0)
            case .untilClose: .untilClose
            }
    }

    /// Whether the body has ended.
    public var isComplete: Bool { state == .complete }

    /// Whether the body ends when the connection does, and has not yet.
    public var endsWithConnection: Bool { state == .untilClose }

    /// The connection ended. A body that was to end with it is complete; any other stays what it is.
    public mutating func connectionEnded() {
        if state == .untilClose { state = .complete }
    }

    /// Looks at the bytes that follow those of the call before.
    /// - Returns: how many of them belong to the body; fewer than all only when it is complete.
    /// - Throws: when the framing is broken; the body cannot be gone on with.
    public mutating func consume(_ bytes: [UInt8]) throws(WireError) -> Int {
        var index = 0
        while index < bytes.count {
            switch state {
            case .complete:
                return index
            case .untilClose:
                index = bytes.count
            case .content(let left):
                let count = skip(left, in: bytes, from: &index)
                state = count == left ? .complete : .content(left - count)
            case .chunk(let left):
                let count = skip(left, in: bytes, from: &index)
                state = count == left ? .chunkEnd : .chunk(left - count)
            default:
                try step(bytes[index])
                index += 1
                consumed &+= 1
            }
        }
        return index
    }

    private mutating func skip(_ count: UInt64, in bytes: [UInt8], from index: inout Int) -> UInt64 {
        let skipped = min(count, UInt64(bytes.count - index))
        index += Int(skipped)
        consumed &+= Int(skipped)
        return skipped
    }
}

// MARK: - Chunks

extension HTTPBodyScanner {
    /// Looks at one byte of the framing.
    private mutating func step(_ byte: UInt8) throws(WireError) {
        switch state {
        case .size(let value, let digits):
            if let digit = Self.hexadecimalDigit(byte) {
                guard digits < Self.digitLimit else { throw broken("a chunk size of more than 15 digits") }
                state = .size(value << 4 | UInt64(digit), digits: digits + 1)
            } else {
                guard byte == HTTPSyntax.carriageReturn, digits > 0 else {
                    throw broken("a chunk size is not a hexadecimal number alone on its line")
                }
                state = .sizeEnd(value)
            }
        case .sizeEnd(let value):
            guard byte == HTTPSyntax.lineFeed else { throw broken("a bare carriage return after a chunk size") }
            state = value == 0 ? .trailers : .chunk(value)
        case .chunkEnd:
            guard byte == HTTPSyntax.carriageReturn else { throw broken("a chunk is longer than its size") }
            state = .chunkLineFeed
        case .chunkLineFeed:
            guard byte == HTTPSyntax.lineFeed else { throw broken("a bare carriage return after a chunk") }
            state = .size(0, digits: 0)
        case .trailers:
            try stepInTrailers(byte)
        case .complete, .content, .untilClose, .chunk:
            break
        }
    }

    private mutating func stepInTrailers(_ byte: UInt8) throws(WireError) {
        trailerLength += 1
        guard trailerLength <= Self.trailerLimit else { throw broken("a trailer section of more than 8 KiB") }
        guard byte == HTTPSyntax.lineFeed else {
            if trailerLine.last == HTTPSyntax.carriageReturn { throw broken("a bare carriage return in a trailer") }
            trailerLine.append(byte)
            return
        }
        guard trailerLine.popLast() == HTTPSyntax.carriageReturn else { throw broken("a bare line feed in a trailer") }
        guard !trailerLine.isEmpty else {
            state = .complete
            return
        }
        let field = try HTTPField(line: trailerLine[...], offset: consumed)
        guard !Self.refusedTrailers.contains(field.key) else { throw broken("a trailer that only a head may have") }
        trailerLine.removeAll(keepingCapacity: true)
    }

    private func broken(_ problem: StaticString) -> WireError { WireError(offset: consumed, problem: problem) }

    private static func hexadecimalDigit(_ byte: UInt8) -> UInt8? {
        switch byte {
        case UInt8(ascii: "0")...UInt8(ascii: "9"): byte - UInt8(ascii: "0")
        case UInt8(ascii: "a")...UInt8(ascii: "f"): byte - UInt8(ascii: "a") + 10
        case UInt8(ascii: "A")...UInt8(ascii: "F"): byte - UInt8(ascii: "A") + 10
        default: nil
        }
    }
}
