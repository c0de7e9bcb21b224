/// A JSON value of an audit line. Numbers are the non-negative integers that records hold.
enum JSONValue: Hashable, Sendable {
    case null
    case bool(Bool)
    case number(UInt64)
    case string(String)
    case object([String: JSONValue])
}

/// Why a line is not an audit record.
enum JSONProblem: Error, Hashable, Sendable {
    /// The line is not one JSON object, or not one that the log would write.
    case malformed(offset: Int)
}

/// Reads the subset of JSON (RFC 8259) that records are written in: one object on one line of printable ASCII, with
/// nested objects, strings, unsigned integers, `true`, `false` and `null`. Duplicate keys are refused, because two
/// readers would see two records in one line.
struct JSONReader {
    private let bytes: [UInt8]
    private var position = 0
    private static let maximumDepth = 8

    private init(_ bytes: [UInt8]) {
        self.bytes = bytes
    }

    static func object(in line: some Collection<UInt8>) throws(JSONProblem) -> [String: JSONValue] {
        var reader = JSONReader(Array(line))
        reader.skipSpace()
        let object = try reader.object(depth: 0)
        reader.skipSpace()
        guard reader.position == reader.bytes.count else { throw reader.problem }
        return object
    }

    private var problem: JSONProblem { .malformed(offset: position) }

    private mutating func skipSpace() {
        while position < bytes.count, bytes[position] == UInt8(ascii: " ") { position += 1 }
    }

    private mutating func skip(_ character: Unicode.Scalar) -> Bool {
        guard position < bytes.count, bytes[position] == UInt8(ascii: character) else { return false }
        position += 1
        return true
    }

    private mutating func expect(_ character: Unicode.Scalar) throws(JSONProblem) {
        guard skip(character) else { throw problem }
    }

    private mutating func object(depth: Int) throws(JSONProblem) -> [String: JSONValue] {
        guard depth < Self.maximumDepth else { throw problem }
        try expect("{")
        var members: [String: JSONValue] = [:]
        skipSpace()
        if skip("}") { return members }
        repeat {
            skipSpace()
            let key = try string()
            skipSpace()
            try expect(":")
            skipSpace()
            let value = try value(depth: depth)
            guard members.updateValue(value, forKey: key) == nil else { throw problem }
            skipSpace()
        } while skip(",")
        try expect("}")
        return members
    }

    private mutating func value(depth: Int) throws(JSONProblem) -> JSONValue {
        guard position < bytes.count else { throw problem }
        switch bytes[position] {
        case UInt8(ascii: "{"): return .object(try object(depth: depth + 1))
        case UInt8(ascii: "\""): return .string(try string())
        case UInt8(ascii: "0")...UInt8(ascii: "9"): return .number(try number())
        case UInt8(ascii: "t"): return try literal("true", .bool(true))
        case UInt8(ascii: "f"): return try literal("false", .bool(false))
        case UInt8(ascii: "n"): return try literal("null", .null)
        default: throw problem
        }
    }

    private mutating func literal(_ text: String, _ value: JSONValue) throws(JSONProblem) -> JSONValue {
        guard bytes[position...].starts(with: text.utf8) else { throw problem }
        position += text.utf8.count
        return value
    }

    private mutating func number() throws(JSONProblem) -> UInt64 {
        let start = position
        var value: UInt64 = 0
        while position < bytes.count, (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(bytes[position]) {
            let (product, overflow) = value.multipliedReportingOverflow(by: 10)
            let (sum, overflowed) = product.addingReportingOverflow(UInt64(bytes[position] - UInt8(ascii: "0")))
            guard !overflow, !overflowed else { throw problem }
            value = sum
            position += 1
        }
        guard position == start + 1 || bytes[start] != UInt8(ascii: "0") else { throw problem }
        return value
    }

    private mutating func string() throws(JSONProblem) -> String {
        try expect("\"")
        let start = position
        while position < bytes.count, bytes[position] != UInt8(ascii: "\\") {
            let byte = bytes[position]
            guard (0x20...0x7E).contains(byte) else { throw problem }
            position += 1
            if byte == UInt8(ascii: "\"") { return String(decoding: bytes[start..<(position - 1)], as: UTF8.self) }
        }
        var units = bytes[start..<position].map { UInt16($0) }
        while !skip("\"") { units.append(try codeUnit()) }
        // Lone surrogates become U+FFFD; they can only come from somebody else's hand.
        return String(decoding: units, as: UTF16.self)
    }

    private mutating func codeUnit() throws(JSONProblem) -> UInt16 {
        guard position < bytes.count, (0x20...0x7E).contains(bytes[position]) else { throw problem }
        let byte = bytes[position]
        position += 1
        guard byte == UInt8(ascii: "\\") else { return UInt16(byte) }
        guard position < bytes.count else { throw problem }
        let escape = bytes[position]
        position += 1
        switch escape {
        case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): return UInt16(escape)
        case UInt8(ascii: "b"): return 0x08
        case UInt8(ascii: "f"): return 0x0C
        case UInt8(ascii: "n"): return 0x0A
        case UInt8(ascii: "r"): return 0x0D
        case UInt8(ascii: "t"): return 0x09
        case UInt8(ascii: "u"): return try hexadecimalUnit()
        default: throw problem
        }
    }

    private mutating func hexadecimalUnit() throws(JSONProblem) -> UInt16 {
        guard position + 4 <= bytes.count else { throw problem }
        var unit: UInt16 = 0
        for byte in bytes[position..<(position + 4)] {
            switch byte {
            case UInt8(ascii: "0")...UInt8(ascii: "9"): unit = unit << 4 | UInt16(byte - UInt8(ascii: "0"))
            case UInt8(ascii: "a")...UInt8(ascii: "f"): unit = unit << 4 | UInt16(byte - UInt8(ascii: "a") + 10)
            case UInt8(ascii: "A")...UInt8(ascii: "F"): unit = unit << 4 | UInt16(byte - UInt8(ascii: "A") + 10)
            default: throw problem
            }
        }
        position += 4
        return unit
    }
}
