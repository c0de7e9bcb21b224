/// A bounds-checked walk over part of a message. Nothing is copied but what ``take(_:)`` returns, nothing past the end of
/// the part is ever read, and a length that promises more than the part holds is an error where it stands.
struct ByteReader {
    private let bytes: [UInt8]
    /// The next byte's offset from the start of the message.
    private(set) var offset: Int
    private let end: Int

    /// Reads all of `bytes`.
    init(_ bytes: [UInt8]) {
        self.init(bytes, 0..<bytes.count)
    }

    /// Reads `range` of `bytes`, cut to what there is; errors count their offsets from the start of `bytes`.
    init(_ bytes: [UInt8], _ range: Range<Int>) {
        let range = range.clamped(to: 0..<bytes.count)
        self.bytes = bytes
        self.offset = range.lowerBound
        self.end = range.upperBound
    }

    /// How many bytes are left.
    var remaining: Int { end - offset }

    /// Whether nothing is left.
    var isAtEnd: Bool { offset == end }

    /// One byte.
    mutating func readUInt8() throws(WireError) -> UInt8 {
        guard offset < end else { throw tooShort }
        defer { offset += 1 }
        return bytes[offset]
    }

    /// Two bytes in network order.
    mutating func readUInt16() throws(WireError) -> UInt16 {
        UInt16(try readUInt8()) << 8 | UInt16(try readUInt8())
    }

    /// Three bytes in network order.
    mutating func readUInt24() throws(WireError) -> UInt32 {
        UInt32(try readUInt8()) << 16 | UInt32(try readUInt16())
    }

    /// A copy of the next `count` bytes.
    mutating func take(_ count: Int) throws(WireError) -> [UInt8] {
        try readPart(count).rest
    }

    /// A reader for the next `count` bytes alone.
    mutating func readPart(_ count: Int) throws(WireError) -> ByteReader {
        guard count >= 0, count <= remaining else { throw tooShort }
        defer { offset += count }
        return ByteReader(bytes, offset..<(offset + count))
    }

    /// A reader for what a length of one byte announces.
    mutating func readPartOfLength8() throws(WireError) -> ByteReader {
        try readPart(Int(try readUInt8()))
    }

    /// A reader for what a length of two bytes announces.
    mutating func readPartOfLength16() throws(WireError) -> ByteReader {
        try readPart(Int(try readUInt16()))
    }

    /// What is left, copied.
    var rest: [UInt8] { Array(bytes[offset..<end]) }

    /// Nothing may be left.
    func finish(_ problem: StaticString) throws(WireError) {
        guard isAtEnd else { throw WireError(offset: offset, problem: problem) }
    }

    private var tooShort: WireError { WireError(offset: offset, problem: "a length reaches past the end") }
}
