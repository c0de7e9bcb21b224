/// A response's head, as far as the end of the message depends on it (RFC 9112 4 and 6.3). It is passed on as it came, so
/// what is merely untidy is let through: bare line feeds, a missing reason, folded lines. What the end of the body
/// depends on is as strict as in a request.
public struct HTTPResponseHead: Hashable, Sendable {
    /// What the bytes so far say.
    public enum Outcome: Hashable, Sendable {
        /// Not decided; at least this many bytes in all are needed.
        case needMore(Int)
        /// A complete head.
        case head(HTTPResponseHead)
        /// Not a response that can be read in one way only.
        case malformed(WireError)
    }

    /// The status, 100...999.
    public let status: Int
    /// How the body ends.
    public let framing: HTTPFraming
    /// How many bytes the head took, the empty line included.
    public let length: Int
    /// Whether the server means to answer another request on the connection, and can.
    public let isPersistent: Bool

    private static let headLimit = 64 * 1024
}

// MARK: - Parsing

extension HTTPResponseHead {
    /// Parses the head at the start of `bytes`, which answers a request with `requestMethod`.
    public static func parse(_ bytes: [UInt8], requestMethod: String) -> Outcome {
        do throws(WireError) {
            guard let lines = try Lines(bytes, limit: headLimit) else { return .needMore(bytes.count + 1) }
            return .head(try HTTPResponseHead(lines, requestMethod: requestMethod))
        } catch {
            return .malformed(error)
        }
    }

    private init(_ lines: Lines, requestMethod: String) throws(WireError) {
        let line = try StatusLine(lines.status)
        let fields = try Fields(lines.fields)
        let hasNoBody =
            requestMethod == "HEAD" || line.status < 200 || line.status == 204 || line.status == 304
            || requestMethod == "CONNECT" && line.status < 300
        let framing = hasNoBody ? .none : try fields.framing(isHTTP11: line.isHTTP11)
        self.status = line.status
        self.framing = framing
        self.length = lines.length
        self.isPersistent =
            framing != .untilClose && !fields.options.contains("close")
            && (line.isHTTP11 || fields.options.contains("keep-alive"))
    }
}

/// A head cut into lines.
private struct Lines {
    var status: ArraySlice<UInt8> = []
    var fields: [ArraySlice<UInt8>] = []
    var length = 0

    /// `nil` when the empty line has not come.
    init?(_ bytes: [UInt8], limit: Int) throws(WireError) {
        // The first bytes tell whether it is worth waiting for more.
        guard zip(bytes, "HTTP/1.".utf8).allSatisfy(==) else {
            throw WireError(offset: 0, problem: "not a response of HTTP/1")
        }
        var start = 0
        let window = bytes.prefix(limit)
        while let end = window[start...].firstIndex(of: HTTPSyntax.lineFeed) {
            let hasReturn = end > start && window[end - 1] == HTTPSyntax.carriageReturn
            let line = window[start..<(hasReturn ? end - 1 : end)]
            if let control = line.firstIndex(where: { !HTTPSyntax.isValueByte($0) }) {
                throw WireError(offset: control, problem: "a control character in a response head")
            }
            if start == 0 {
                status = line
            } else if line.isEmpty {
                length = end + 1
                return
            } else {
                fields.append(line)
            }
            start = end + 1
        }
        guard bytes.count < limit else {
            throw WireError(offset: limit, problem: "a response head of more than 64 KiB")
        }
        return nil
    }
}

/// `HTTP/1.1 200 OK`
private struct StatusLine {
    let isHTTP11: Bool
    let status: Int

    init(_ line: ArraySlice<UInt8>) throws(WireError) {
        let parts = line.split(separator: HTTPSyntax.space, maxSplits: 2, omittingEmptySubsequences: false)
        guard parts.count >= 2, parts[1].count == 3, let status = HTTPSyntax.decimal(parts[1]), status >= 100 else {
            throw WireError(offset: 0, problem: "a status line without a status of three digits")
        }
        self.status = Int(status)
        if parts[0].elementsEqual("HTTP/1.1".utf8) {
            self.isHTTP11 = true
        } else if parts[0].elementsEqual("HTTP/1.0".utf8) {
            self.isHTTP11 = false
        } else {
            throw WireError(offset: 0, problem: "the version is not HTTP/1.1 or HTTP/1.0")
        }
    }
}

/// The fields that say where the message ends.
private struct Fields {
    var lengths: [ArraySlice<UInt8>] = []
    var codings: [ArraySlice<UInt8>] = []
    var options: Set<String> = []

    private static let limit = 500

    init(_ lines: [ArraySlice<UInt8>]) throws(WireError) {
        guard lines.count <= Self.limit else {
            throw WireError(offset: 0, problem: "a response of more than 500 fields")
        }
        var isOfFraming = true
        for line in lines {
            if line.first == HTTPSyntax.space || line.first == HTTPSyntax.tab {
                // A continuation says nothing of the message's end, unless what it continues does.
                guard !isOfFraming else {
                    throw WireError(offset: line.startIndex, problem: "a folded line where the framing is told")
                }
                continue
            }
            let field = try HTTPField(line: line, offset: line.startIndex)
            isOfFraming = true
            switch field.key {
            case "content-length":
                lengths += field.value.split(separator: UInt8(ascii: ","), omittingEmptySubsequences: false)
            case "transfer-encoding": codings += HTTPSyntax.listMembers(field.value[...])
            case "connection":
                options.formUnion(
                    HTTPSyntax.listMembers(field.value[...])
                        .map { String(decoding: HTTPSyntax.lowercased($0), as: UTF8.self) }
                )
            default: isOfFraming = false
            }
        }
    }

    func framing(isHTTP11: Bool) throws(WireError) -> HTTPFraming {
        // RFC 2616 had a coding that changes nothing; some servers still name it.
        let codings = codings.filter { !HTTPSyntax.isEqual($0, ignoringCase: "identity") }
        if let last = codings.last {
            let chunked = codings.count { HTTPSyntax.isEqual($0, ignoringCase: "chunked") }
            guard isHTTP11, lengths.isEmpty, chunked == 1, HTTPSyntax.isEqual(last, ignoringCase: "chunked") else {
                throw WireError(offset: 0, problem: "a Transfer-Encoding that leaves the end of the body open")
            }
            return .chunked
        }
        let values = Set(lengths.map { HTTPSyntax.decimal(HTTPSyntax.trimmed($0)) })
        guard let first = values.first else { return .untilClose }
        guard values.count == 1, let length = first else {
            throw WireError(offset: 0, problem: "Content-Length is not one number")
        }
        return .length(length)
    }
}
