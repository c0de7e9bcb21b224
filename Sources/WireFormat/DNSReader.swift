/// Reads a DNS message front to back; every read is checked against the end of the message. What it cannot read is a
/// `WireError`, never a trap.
struct DNSReader {
    let bytes: [UInt8]
    private(set) var offset: Int
    /// One past the last byte that may be read; names may point anywhere before themselves all the same.
    private(set) var end: Int

    init(_ bytes: [UInt8], offset: Int = 0) {
        self.bytes = bytes
        self.offset = min(max(offset, 0), bytes.count)
        self.end = bytes.count
    }

    var isAtEnd: Bool { offset == end }
    var remaining: Int { end - offset }

    func error(_ problem: StaticString) -> WireError { WireError(offset: offset, problem: problem) }

    mutating func readByte() throws(WireError) -> UInt8 {
        guard remaining >= 1 else { throw error("message ends too early") }
        defer { offset += 1 }
        return bytes[offset]
    }

    mutating func readUInt16() throws(WireError) -> UInt16 {
        guard remaining >= 2 else { throw error("message ends too early") }
        defer { offset += 2 }
        return UInt16(bytes[offset]) << 8 | UInt16(bytes[offset + 1])
    }

    mutating func readUInt32() throws(WireError) -> UInt32 {
        let high = try readUInt16()
        return UInt32(high) << 16 | UInt32(try readUInt16())
    }

    mutating func readBytes(_ count: Int) throws(WireError) -> ArraySlice<UInt8> {
        guard count >= 0, remaining >= count else { throw error("message ends too early") }
        defer { offset += count }
        return bytes[offset..<(offset + count)]
    }

    /// Runs `body` on exactly the next `count` bytes, which it must read to their end.
    mutating func readExactly<Value>(
        _ count: Int,
        _ body: (inout DNSReader) throws(WireError) -> Value
    ) throws(WireError) -> Value {
        guard count >= 0, remaining >= count else { throw error("record data runs past the message") }
        var inner = self
        inner.end = offset + count
        let value = try body(&inner)
        guard inner.isAtEnd else { throw inner.error("record data has trailing bytes") }
        offset = inner.offset
        return value
    }
}

// MARK: - Names

extension DNSReader {
    /// The most pointers followed within one name. A name has at most 127 labels, and no honest encoder needs two
    /// pointers in a row.
    private static let maximumHops = 127

    /// Reads a name written without compression: in a question, and wherever RFC 3597 forbids it.
    mutating func readUncompressedName() throws(WireError) -> DNSWireName {
        DNSWireName(wire: try readName(allowingPointers: false))
    }

    /// Reads a name, following compression pointers (RFC 1035 4.1.4), and folds it to lower case. Each pointer must lead to
    /// before where the part of the name that it ends began, so no chain of them comes back.
    mutating func readFoldedName() throws(WireError) -> DNSWireName {
        // Every OPT record has it; it is made once.
        if offset < end, bytes[offset] == 0 {
            offset += 1
            return .root
        }
        return DNSWireName(folding: try readName(allowingPointers: true))
    }

    private mutating func readName(allowingPointers: Bool) throws(WireError) -> [UInt8] {
        var name: [UInt8] = []
        // Grown label by label, it would be moved several times.
        name.reserveCapacity(64)
        var hops = 0
        var cursor = self
        var floor = offset
        while true {
            let length = try cursor.readByte()
            switch length & 0xc0 {
            case 0x00:
                name.append(length)
                guard name.count + Int(length) <= DNSWireName.maximumCount else {
                    throw cursor.error("name is longer than 255 bytes")
                }
                name += try cursor.readBytes(Int(length))
                if length == 0 {
                    if hops == 0 { offset = cursor.offset }
                    return name
                }
            case 0xc0:
                guard allowingPointers else { throw cursor.error("name is compressed where it must not be") }
                let target = Int(length & 0x3f) << 8 | Int(try cursor.readByte())
                guard target < floor, target >= 12 else { throw cursor.error("compression pointer does not lead back") }
                hops += 1
                guard hops <= Self.maximumHops else { throw cursor.error("name has too many compression pointers") }
                if hops == 1 { offset = cursor.offset }
                // A name that is pointed to ended before this part of ours began. What runs on into it, two readers would
                // take for two names.
                cursor = DNSReader(bytes, offset: target)
                cursor.end = floor
                floor = target
            default:
                throw cursor.error("label is of an unknown kind")
            }
        }
    }
}
