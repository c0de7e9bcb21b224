/// A host name in canonical form: lower-case ASCII letters, digits, hyphens and underscores in labels of 1...63 bytes,
/// at most 253 bytes, no trailing dot, at least one label. Whatever is not that never becomes a `DomainName`, so
/// comparing two of them is comparing bytes, and no label can hold a dot.
public struct DomainName: Hashable, Sendable {
    /// The canonical bytes, labels separated by dots.
    public let bytes: [UInt8]

    /// Why bytes are not a domain name.
    public enum ParseError: Error, Hashable, Sendable {
        /// No bytes, or only a dot.
        case empty
        /// More than 253 bytes without the trailing dot (RFC 1035 2.3.4).
        case tooLong
        /// An empty label: a leading dot or two dots in a row.
        case emptyLabel
        /// A label of more than 63 bytes.
        case labelTooLong
        /// A byte that is not a letter, digit, hyphen or underscore.
        case invalidByte(UInt8)
        /// The name is written like an IPv4 address: its last label is a number (WHATWG URL "ends in a number").
        case numericLastLabel
    }

    /// Parses presentation-form bytes. Upper case is folded and one trailing dot removed. A name whose last label is
    /// numeric (`127.1`, `0x7f.1`, `1.2.3.4`) is refused: some resolver would read it as an address.
    public init(ascii: some Collection<UInt8>) throws(ParseError) {
        try self.init(ascii: Array(ascii))
    }

    /// The same of an array, as most are.
    public init(ascii: [UInt8]) throws(ParseError) {
        var bytes = ascii
        if bytes.last == UInt8(ascii: ".") { bytes.removeLast() }
        guard !bytes.isEmpty else { throw .empty }
        guard bytes.count <= 253 else { throw .tooLong }
        var labelStart = 0
        for index in bytes.indices {
            let byte = bytes[index]
            if byte == UInt8(ascii: ".") {
                guard index > labelStart else { throw .emptyLabel }
                guard index - labelStart <= 63 else { throw .labelTooLong }
                labelStart = index + 1
            } else {
                guard let folded = Self.fold(byte) else { throw .invalidByte(byte) }
                // Most are as they should be; to write even the same would ask each time whether the array is shared.
                if folded != byte { bytes[index] = folded }
            }
        }
        guard labelStart < bytes.count else { throw .emptyLabel }
        guard bytes.count - labelStart <= 63 else { throw .labelTooLong }
        guard !Self.isNumeric(bytes[labelStart...]) else { throw .numericLastLabel }
        self.bytes = bytes
    }

    /// Parses text; see ``init(ascii:)``.
    public init(_ text: String) throws(ParseError) {
        try self.init(ascii: Array(text.utf8))
    }

    /// Whether it has no dot, as names have that mean something in one network alone.
    public var hasOneLabel: Bool { !bytes.contains(UInt8(ascii: ".")) }

    /// The canonical byte of an allowed byte (upper case folded), `nil` for any other.
    @inlinable public static func fold(_ byte: UInt8) -> UInt8? {
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"),
            UInt8(ascii: "_"):
            return byte
        case UInt8(ascii: "A")...UInt8(ascii: "Z"):
            return byte | 0x20
        default:
            return nil
        }
    }

    private static func isNumeric(_ label: ArraySlice<UInt8>) -> Bool {
        let digits = UInt8(ascii: "0")...UInt8(ascii: "9")
        // Hexadecimal ones begin with a digit as well.
        guard let first = label.first, digits.contains(first) else { return false }
        if label.allSatisfy({ digits.contains($0) }) { return true }
        guard label.starts(with: Array("0x".utf8)) else { return false }
        return label.dropFirst(2).allSatisfy {
            digits.contains($0) || (UInt8(ascii: "a")...UInt8(ascii: "f")).contains($0)
        }
    }
}

extension DomainName {
    /// The bytes at once: one by one, hashing them took longer than all else that a look-up does.
    public func hash(into hasher: inout Hasher) {
        bytes.withUnsafeBytes { hasher.combine(bytes: $0) }
    }

    /// The labels, left-most first.
    public var labels: [ArraySlice<UInt8>] { bytes.split(separator: UInt8(ascii: ".")) }

    /// The name without its left-most label; `nil` for a single label.
    public var parent: DomainName? {
        guard let dot = bytes.firstIndex(of: UInt8(ascii: ".")) else { return nil }
        return DomainName(canonical: Array(bytes[(dot + 1)...]))
    }

    /// Whether the name lies below `ancestor`, at any depth; a name is not below itself.
    public func isBelow(_ ancestor: DomainName) -> Bool {
        let offset = bytes.count - ancestor.bytes.count
        return offset > 1 && bytes[offset - 1] == UInt8(ascii: ".") && bytes[offset...].elementsEqual(ancestor.bytes)
    }

    private init(canonical bytes: [UInt8]) {
        self.bytes = bytes
    }
}

extension DomainName: CustomStringConvertible, Comparable {
    /// The canonical text.
    public var description: String { String(decoding: bytes, as: UTF8.self) }

    /// Byte order, for stable listings.
    public static func < (left: Self, right: Self) -> Bool { left.bytes.lexicographicallyPrecedes(right.bytes) }
}
