import NetPrimitives

/// The characters of HTTP/1 (RFC 9110 5.6, RFC 9112 2.2), as the head parsers and the trailer scanner share them.
enum HTTPSyntax {
    static let space = UInt8(ascii: " ")
    static let tab = UInt8(ascii: "\t")
    static let carriageReturn = UInt8(ascii: "\r")
    static let lineFeed = UInt8(ascii: "\n")

    /// Whether `byte` may stand in a token: a method, a field name, a connection option.
    static func isTokenByte(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
            UInt8(ascii: "0")...UInt8(ascii: "9"):
            true
        default:
            "!#$%&'*+-.^_`|~".utf8.contains(byte)
        }
    }

    /// Whether `bytes` are a token.
    static func isToken(_ bytes: some Collection<UInt8>) -> Bool {
        !bytes.isEmpty && bytes.allSatisfy(isTokenByte)
    }

    /// Whether `byte` may stand in a field value: no control character but the tab.
    static func isValueByte(_ byte: UInt8) -> Bool {
        byte == tab || (byte >= 0x20 && byte != 0x7f)
    }

    /// Whether `byte` may stand in a request target: visible ASCII but the hash, since a fragment is never sent.
    static func isTargetByte(_ byte: UInt8) -> Bool {
        byte > 0x20 && byte < 0x7f && byte != UInt8(ascii: "#")
    }

    /// `bytes` without the spaces and tabs around them.
    static func trimmed(_ bytes: ArraySlice<UInt8>) -> ArraySlice<UInt8> {
        guard let first = bytes.firstIndex(where: { $0 != space && $0 != tab }),
            let last = bytes.lastIndex(where: { $0 != space && $0 != tab })
        else { return bytes.prefix(0) }
        return bytes[first...last]
    }

    /// ASCII upper case folded; everything else as it is.
    static func lowercased(_ bytes: some Collection<UInt8>) -> [UInt8] {
        bytes.map { (UInt8(ascii: "A")...UInt8(ascii: "Z")).contains($0) ? $0 | 0x20 : $0 }
    }

    /// Whether `bytes` are `text`, which is lower case, whatever their case.
    static func isEqual(_ bytes: some Collection<UInt8>, ignoringCase text: String) -> Bool {
        lowercased(bytes).elementsEqual(text.utf8)
    }

    /// Whether `text`, which is lower case, stands somewhere in `bytes`, whatever their case.
    static func contains(_ bytes: ArraySlice<UInt8>, ignoringCase text: String) -> Bool {
        let wanted = Array(text.utf8)
        let folded = lowercased(bytes)
        guard folded.count >= wanted.count else { return false }
        return (0...(folded.count - wanted.count)).contains { folded[$0...].starts(with: wanted) }
    }

    /// The members of a comma-separated list (RFC 9110 5.6.1), trimmed; empty ones are dropped.
    static func listMembers(_ value: ArraySlice<UInt8>) -> [ArraySlice<UInt8>] {
        value.split(separator: UInt8(ascii: ",")).map(trimmed).filter { !$0.isEmpty }
    }

    /// A decimal number of 1 to 18 digits without sign; leading zeros are refused, since some readers take them for octal.
    static func decimal(_ bytes: some Collection<UInt8>) -> UInt64? {
        guard (1...18).contains(bytes.count) else { return nil }
        guard bytes.count == 1 || bytes.first != UInt8(ascii: "0") else { return nil }
        var value: UInt64 = 0
        for byte in bytes {
            guard (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte) else { return nil }
            value = value * 10 + UInt64(byte - UInt8(ascii: "0"))
        }
        return value
    }
}

/// One header or trailer field.
struct HTTPField: Hashable, Sendable {
    /// The name as it was written.
    let name: [UInt8]
    /// The name in lower case.
    let key: String
    /// The value without white space around it.
    let value: [UInt8]
    /// Where the line stood in the head.
    let offset: Int

    /// Parses a field line without its line end (RFC 9112 5).
    /// - Parameter offset: where the line stands, for errors.
    init(line: ArraySlice<UInt8>, offset: Int) throws(WireError) {
        guard line.first != HTTPSyntax.space, line.first != HTTPSyntax.tab else {
            throw WireError(offset: offset, problem: "a folded header line")
        }
        guard let colon = line.firstIndex(of: UInt8(ascii: ":")) else {
            throw WireError(offset: offset, problem: "a header line without a colon")
        }
        let name = line[..<colon]
        guard HTTPSyntax.isToken(name) else {
            throw WireError(offset: offset, problem: "a header name that is no token")
        }
        let value = line[(colon + 1)...]
        guard value.allSatisfy(HTTPSyntax.isValueByte) else {
            throw WireError(offset: offset, problem: "a control character in a header value")
        }
        self.name = Array(name)
        self.key = String(decoding: HTTPSyntax.lowercased(name), as: UTF8.self)
        self.value = Array(HTTPSyntax.trimmed(value))
        self.offset = offset
    }
}
