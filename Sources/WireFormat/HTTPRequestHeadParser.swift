/// Finds a request head at the start of a stream (RFC 9112), strictly: what two servers may read in two ways is malformed.
///
/// The first line decides whether it is HTTP at all. Whatever some server could take for a request must parse; only what
/// none does is something else:
///
///     bytes ─▶ first line ─┬─ names HTTP, or asks as HTTP does ─▶ strict request line ─▶ fields ─▶ head
///                          └─ anything else ─▶ not HTTP
///
/// Like ``ClientHelloParser``, its outcome depends on the bytes alone and not on how they were divided over calls.
public struct HTTPRequestHeadParser {
    /// What the bytes so far say.
    public enum Outcome: Hashable, Sendable {
        /// Not decided; at least this many bytes in all are needed.
        case needMore(Int)
        /// A complete head.
        case head(HTTPRequestHead)
        /// Not HTTP.
        case notHTTP
        /// The connection preface of HTTP/2 with prior knowledge (RFC 9113 3.4).
        case http2Preface
        /// HTTP/1, but broken or ambiguous.
        case malformed(WireError)
    }

    /// The most bytes of a first line.
    static let lineLimit = 16 * 1024
    /// The most bytes of a head.
    static let headLimit = 32 * 1024
    /// The most fields of a head.
    static let fieldLimit = 100

    private var requestLine: HTTPRequestLine?
    private var fields: [HTTPField] = []
    /// Where the first line that has not been read starts.
    private var lineStart = 0
    /// Up to where no line feed was found after `lineStart`.
    private var searched = 0

    /// Before the first byte.
    public init() {}

    /// Looks at everything received so far; each call must pass the bytes of the call before and any number more.
    public mutating func parse(_ bytes: [UInt8]) -> Outcome {
        guard !bytes.isEmpty else { return .needMore(1) }
        do throws(WireError) {
            if requestLine == nil, let outcome = try readFirstLine(bytes) { return outcome }
            return try readFields(bytes)
        } catch {
            return .malformed(error)
        }
    }

    private mutating func lineFeed(in bytes: [UInt8], before limit: Int) -> Int? {
        let start = max(lineStart, searched)
        guard start < limit else { return nil }
        let found = bytes[start..<limit].firstIndex(of: HTTPSyntax.lineFeed)
        searched = found ?? limit
        return found
    }
}

// MARK: - The first line

extension HTTPRequestHeadParser {
    private static let preface = Array("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".utf8)

    /// Reads the first line when it is there.
    /// - Returns: the outcome, or `nil` when there is a request line and the fields follow.
    private mutating func readFirstLine(_ bytes: [UInt8]) throws(WireError) -> Outcome? {
        if bytes.starts(with: Self.preface) { return .http2Preface }
        if Self.preface.starts(with: bytes) { return .needMore(bytes.count + 1) }

        guard let start = bytes.prefix(Self.lineLimit).firstIndex(where: { !FirstLine.isWhiteSpace($0) }) else {
            return bytes.count < Self.lineLimit ? .needMore(bytes.count + 1) : .notHTTP
        }
        lineStart = start
        let limit = min(bytes.count, start + Self.lineLimit)
        guard let end = lineFeed(in: bytes, before: limit) else {
            switch FirstLine(bytes[start..<limit]).glance() {
            case .notHTTP: return .notHTTP
            case .malformed: throw WireError(offset: start, problem: "a NUL byte in a request line")
            case .undecided where bytes.count < start + Self.lineLimit: return .needMore(bytes.count + 1)
            case .undecided:
                guard FirstLine(bytes[start..<limit]).hasTwoWords else { return .notHTTP }
                throw WireError(offset: start, problem: "a request line of more than 16 KiB")
            }
        }
        let line = FirstLine(bytes[start..<end])
        switch line.glance() {
        case .notHTTP: return .notHTTP
        case .malformed: throw WireError(offset: start, problem: "a NUL byte in a request line")
        case .undecided: break
        }
        guard line.isMeantAsRequest else { return .notHTTP }
        guard start == 0 else { throw WireError(offset: 0, problem: "white space before a request") }
        requestLine = try HTTPRequestLine(line: bytes[start..<end])
        lineStart = end + 1
        return nil
    }
}

/// A first line that may or may not be HTTP's, complete or so far.
private struct FirstLine {
    enum Glance {
        case undecided
        case notHTTP
        case malformed
    }

    private let bytes: ArraySlice<UInt8>
    /// What a server would take for the method.
    private let firstWord: ArraySlice<UInt8>
    /// What follows, from its first byte that is no white space.
    private let afterwards: ArraySlice<UInt8>

    init(_ bytes: ArraySlice<UInt8>) {
        self.bytes = bytes
        self.firstWord = bytes.prefix { !Self.isWhiteSpace($0) }
        self.afterwards = bytes[firstWord.endIndex...].drop { Self.isWhiteSpace($0) }
    }

    /// What some server divides a request line by (RFC 9112 3).
    static func isWhiteSpace(_ byte: UInt8) -> Bool { byte == HTTPSyntax.space || (9...13).contains(byte) }

    /// Whether the method is followed by something.
    var hasTwoWords: Bool { firstWord.endIndex < bytes.endIndex }

    /// Decides before the line is complete, where that can be done, since many protocols have no lines: no server takes
    /// a first word that is no token for a method, and none a line with a NUL for anything but an error.
    func glance() -> Glance {
        guard firstWord.allSatisfy(HTTPSyntax.isTokenByte) else { return .notHTTP }
        guard afterwards.contains(0) else { return .undecided }
        return hasMethodOfHTTP ? .malformed : .notHTTP
    }

    /// Whether some server may take the complete line for a request: it names HTTP; or it has a method and a path and so
    /// is one of HTTP/0.9, or of any version to servers that do not look; or it names an `http` URI, from which servers
    /// take the host whatever follows; or it asks for another URI as HTTP/0.9 does.
    var isMeantAsRequest: Bool {
        HTTPSyntax.contains(bytes, ignoringCase: "http/")
            || hasMethodOfHTTP && afterwards.first == UInt8(ascii: "/")
            || HTTPSyntax.isEqual(afterwards.prefix(7), ignoringCase: "http://")
            || HTTPSyntax.isEqual(afterwards.prefix(8), ignoringCase: "https://")
            || firstWord.elementsEqual("GET".utf8) && namesURI
    }

    /// Whether the method is followed by a URI with an authority, of any scheme (RFC 3986 3.1). Without a version the line
    /// is a request of HTTP/0.9, which has GET alone, to servers that take the host from it whatever the scheme.
    private var namesURI: Bool {
        let scheme = afterwards.prefix(while: HTTPSyntax.isTokenByte)
        return !scheme.isEmpty && afterwards[scheme.endIndex...].starts(with: "://".utf8)
    }

    private static let methods: Set<[UInt8]> = Set(
        ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"].map { Array($0.utf8) }
    )

    private var hasMethodOfHTTP: Bool { Self.methods.contains(Array(firstWord)) }
}

// MARK: - Fields

extension HTTPRequestHeadParser {
    private mutating func readFields(_ bytes: [UInt8]) throws(WireError) -> Outcome {
        guard let requestLine else { return .needMore(bytes.count + 1) }
        let limit = min(bytes.count, Self.headLimit)
        while let end = lineFeed(in: bytes, before: limit) {
            let offset = lineStart
            let line = bytes[offset..<end]
            lineStart = end + 1
            guard line.last == HTTPSyntax.carriageReturn else {
                throw WireError(offset: end, problem: "a bare line feed in a head")
            }
            guard line.count > 1 else {
                return .head(try HTTPRequestHead(requestLine, fields: fields, length: lineStart))
            }
            guard fields.count < Self.fieldLimit else {
                throw WireError(offset: offset, problem: "a head of more than 100 fields")
            }
            fields.append(try HTTPField(line: line.dropLast(), offset: offset))
        }
        guard bytes.count < Self.headLimit else {
            throw WireError(offset: Self.headLimit, problem: "a head of more than 32 KiB")
        }
        return .needMore(bytes.count + Self.missingOfEnd(bytes))
    }

    /// How many bytes are missing of the line end and empty line that end a head.
    private static func missingOfEnd(_ bytes: [UInt8]) -> Int {
        let end = Array("\r\n\r\n".utf8)
        for present in (1..<end.count).reversed() where bytes.suffix(present).elementsEqual(end.prefix(present)) {
            return end.count - present
        }
        return end.count
    }
}
