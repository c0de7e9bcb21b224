/// Writes one JSON object on one line, member by member, as bytes: a record is built for every connection, so there is
/// no `String` and no `Encodable` in between.
struct RecordWriter {
    private var bytes: [UInt8] = []
    private var isFirst = true

    /// An object without members.
    init() {
        // Most records fit, so that a record is one allocation.
        bytes.reserveCapacity(448)
        bytes.append(UInt8(ascii: "{"))
    }

    /// Ends the object and gives it.
    mutating func finish() -> [UInt8] {
        bytes.append(UInt8(ascii: "}"))
        return bytes
    }

    mutating func member(_ key: StaticString, string text: some StringProtocol, limit: Int = .max) {
        name(key)
        appendQuoted(text, limit: limit)
    }

    mutating func member(_ key: StaticString, ascii text: some Sequence<UInt8>) {
        name(key)
        bytes.append(UInt8(ascii: "\""))
        bytes.append(contentsOf: text)
        bytes.append(UInt8(ascii: "\""))
    }

    mutating func member(_ key: StaticString, number: UInt64) {
        name(key)
        appendNumber(number)
    }

    mutating func member(_ key: StaticString, bool value: Bool) {
        name(key)
        append(value ? "true" : "false")
    }

    mutating func member(_ key: StaticString, null _: Void) {
        name(key)
        append("null")
    }

    /// An object as a member's value: what `write` adds.
    mutating func member(_ key: StaticString, object write: (inout RecordWriter) -> Void) {
        name(key)
        bytes.append(UInt8(ascii: "{"))
        isFirst = true
        write(&self)
        bytes.append(UInt8(ascii: "}"))
        isFirst = false
    }

    mutating func timestamp(_ key: StaticString, write: (inout [UInt8]) -> Void) {
        name(key)
        bytes.append(UInt8(ascii: "\""))
        write(&bytes)
        bytes.append(UInt8(ascii: "\""))
    }

    private mutating func name(_ key: StaticString) {
        if isFirst { isFirst = false } else { bytes.append(UInt8(ascii: ",")) }
        bytes.append(UInt8(ascii: "\""))
        append(key)
        bytes.append(UInt8(ascii: "\""))
        bytes.append(UInt8(ascii: ":"))
    }

    private mutating func append(_ text: StaticString) {
        text.withUTF8Buffer { bytes.append(contentsOf: $0) }
    }

    private mutating func appendNumber(_ number: UInt64) {
        let start = bytes.count
        var rest = number
        repeat {
            bytes.append(UInt8(ascii: "0") + UInt8(rest % 10))
            rest /= 10
        } while rest > 0
        bytes[start...].reverse()
    }

    /// A JSON string of printable ASCII alone, whatever the text: a log is also read with `cat`. Stops after `limit`
    /// scalars, so that no sandbox can write a line of any length it likes.
    private mutating func appendQuoted(_ text: some StringProtocol, limit: Int) {
        bytes.append(UInt8(ascii: "\""))
        for scalar in text.unicodeScalars.prefix(limit) {
            switch scalar.value {
            case 0x22, 0x5C:
                bytes.append(UInt8(ascii: "\\"))
                bytes.append(UInt8(scalar.value))
            case 0x20...0x7E:
                bytes.append(UInt8(scalar.value))
            case 0x1_0000...:
                appendEscape(0xD800 + UInt16((scalar.value - 0x1_0000) >> 10))
                appendEscape(0xDC00 + UInt16((scalar.value - 0x1_0000) & 0x3FF))
            default:
                appendEscape(UInt16(scalar.value))
            }
        }
        bytes.append(UInt8(ascii: "\""))
    }

    private mutating func appendEscape(_ unit: UInt16) {
        append("\\u")
        for shift in [12, 8, 4, 0] as [UInt16] { bytes.append(hexDigit(UInt8(unit >> shift & 0xF))) }
    }
}

/// The lower-case hexadecimal digit of a value below 16.
func hexDigit(_ value: UInt8) -> UInt8 {
    value < 10 ? UInt8(ascii: "0") + value : UInt8(ascii: "a") + value - 10
}
