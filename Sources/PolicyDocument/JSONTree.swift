/// JSON as RFC 8259 has it and nothing more: no comments, no trailing commas, no NaN, no lone surrogates. Keys may repeat
/// here; the validation refuses that where it matters.
struct JSONTree {
    private let bytes: [UInt8]
    private var index = 0
    /// The position of the byte at `counted`; counted on from there, since a document may be one long line.
    private var place = DocumentNode.Position()
    private var counted = 0

    /// Parses bytes that are valid UTF-8.
    static func parse(_ bytes: [UInt8]) throws(SyntaxError) -> DocumentNode? {
        var parser = JSONTree(bytes: bytes)
        parser.skipSpace()
        guard parser.index < bytes.count else { return nil }
        let node = try parser.value(depth: 0)
        parser.skipSpace()
        guard parser.index == bytes.count else { throw parser.error("expected the end of the document") }
        return node
    }

    private init(bytes: [UInt8]) {
        self.bytes = bytes
    }

    private var current: UInt8? { index < bytes.count ? bytes[index] : nil }

    private var position: DocumentNode.Position {
        mutating get {
            while counted < index {
                if bytes[counted] == UInt8(ascii: "\n") {
                    place = DocumentNode.Position(line: place.line + 1, column: 1)
                } else if bytes[counted] & 0xc0 != 0x80 {  // continuation bytes do not start a scalar
                    place.column += 1
                }
                counted += 1
            }
            return place
        }
    }

    private mutating func error(_ message: String) -> SyntaxError {
        SyntaxError(position: position, message: message)
    }

    private mutating func skipSpace() {
        while let byte = current, " \t\r\n".utf8.contains(byte) { index += 1 }
    }

    private mutating func take(_ byte: UInt8) -> Bool {
        guard current == byte else { return false }
        index += 1
        return true
    }

    private mutating func value(depth: Int) throws(SyntaxError) -> DocumentNode {
        guard depth < DocumentLimits.depth else { throw error("nested deeper than \(DocumentLimits.depth) levels") }
        let start = position
        guard let byte = current else { throw error("expected a value, found the end of the document") }
        switch byte {
        case UInt8(ascii: "{"): return DocumentNode(value: .mapping(try members(depth)), position: start)
        case UInt8(ascii: "["): return DocumentNode(value: .sequence(try elements(depth)), position: start)
        case UInt8(ascii: "\""): return DocumentNode(value: .string(try string()), position: start)
        case UInt8(ascii: "-"), UInt8(ascii: "0")...UInt8(ascii: "9"):
            return DocumentNode(value: .number(try number()), position: start)
        default:
            for (word, value) in [("null", DocumentNode.Value.null), ("true", .bool(true)), ("false", .bool(false))]
            where bytes[index...].starts(with: word.utf8) {
                index += word.utf8.count
                return DocumentNode(value: value, position: start)
            }
            throw error("expected a JSON value")
        }
    }

    private mutating func members(_ depth: Int) throws(SyntaxError) -> [DocumentNode.Member] {
        index += 1
        skipSpace()
        var members: [DocumentNode.Member] = []
        if take(UInt8(ascii: "}")) { return members }
        while true {
            let start = position
            guard current == UInt8(ascii: "\"") else {
                throw error(
                    current == UInt8(ascii: "}") ? "a comma before } is not JSON" : "expected a key in double quotes"
                )
            }
            let key = try string()
            skipSpace()
            guard take(UInt8(ascii: ":")) else { throw error("expected : after the key") }
            skipSpace()
            members.append(DocumentNode.Member(key: key, position: start, value: try value(depth: depth + 1)))
            skipSpace()
            if take(UInt8(ascii: "}")) { return members }
            guard take(UInt8(ascii: ",")) else { throw error("expected , or }") }
            skipSpace()
        }
    }

    private mutating func elements(_ depth: Int) throws(SyntaxError) -> [DocumentNode] {
        index += 1
        skipSpace()
        var elements: [DocumentNode] = []
        if take(UInt8(ascii: "]")) { return elements }
        while true {
            if current == UInt8(ascii: "]") { throw error("a comma before ] is not JSON") }
            elements.append(try value(depth: depth + 1))
            skipSpace()
            if take(UInt8(ascii: "]")) { return elements }
            guard take(UInt8(ascii: ",")) else { throw error("expected , or ]") }
            skipSpace()
        }
    }
}

// MARK: - Scalars

extension JSONTree {
    private mutating func digits() throws(SyntaxError) {
        let start = index
        while let byte = current, (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte) { index += 1 }
        guard index > start else { throw error("expected a digit") }
    }

    private mutating func number() throws(SyntaxError) -> String {
        let start = index
        _ = take(UInt8(ascii: "-"))
        if !take(UInt8(ascii: "0")) { try digits() }
        if take(UInt8(ascii: ".")) { try digits() }
        if take(UInt8(ascii: "e")) || take(UInt8(ascii: "E")) {
            _ = take(UInt8(ascii: "+")) || take(UInt8(ascii: "-"))
            try digits()
        }
        if let byte = current, (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte) {
            throw error("a number does not start with 0")
        }
        return String(decoding: bytes[start..<index], as: UTF8.self)
    }

    private mutating func string() throws(SyntaxError) -> String {
        index += 1
        var text: [UInt8] = []
        while true {
            guard let byte = current else { throw error("a string without a closing quote") }
            switch byte {
            case UInt8(ascii: "\""):
                index += 1
                return String(decoding: text, as: UTF8.self)
            case UInt8(ascii: "\\"):
                text += String(try escape()).utf8
            case 0..<0x20:
                throw error(byte == 0x0a ? "a string without a closing quote" : "a control character in a string")
            default:
                text.append(byte)
                index += 1
            }
        }
    }

    private mutating func escape() throws(SyntaxError) -> Unicode.Scalar {
        let start = error("not an escape of JSON")
        index += 1
        guard let byte = current else { throw start }
        index += 1
        switch byte {
        case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): return Unicode.Scalar(byte)
        case UInt8(ascii: "b"): return "\u{8}"
        case UInt8(ascii: "f"): return "\u{c}"
        case UInt8(ascii: "n"): return "\n"
        case UInt8(ascii: "r"): return "\r"
        case UInt8(ascii: "t"): return "\t"
        case UInt8(ascii: "u"): break
        default: throw start
        }
        guard let unit = codeUnit() else { throw start }
        if let scalar = Unicode.Scalar(unit) { return scalar }
        let lone = SyntaxError(position: start.position, message: "half of a surrogate pair")
        guard unit < 0xdc00, take(UInt8(ascii: "\\")), take(UInt8(ascii: "u")), let second = codeUnit(),
            (0xdc00...0xdfff).contains(second)
        else { throw lone }
        return Unicode.Scalar(0x1_0000 + (UInt32(unit) - 0xd800) << 10 + (UInt32(second) - 0xdc00))!
    }

    private mutating func codeUnit() -> UInt16? {
        guard index + 4 <= bytes.count else { return nil }
        let digits = bytes[index..<(index + 4)]
        guard digits.allSatisfy({ Character(Unicode.Scalar($0)).isHexDigit && $0 < 0x80 }) else { return nil }
        index += 4
        return UInt16(String(decoding: digits, as: UTF8.self), radix: 16)
    }
}
