public import NetPrimitives

/// A domain name as DNS carries it: labels of any bytes. Most are not host names; those that are have a
/// ``domainName()``. Two names are equal when their bytes are, case included; compare ``folded`` ones to ignore case.
public struct DNSWireName: Hashable, Sendable {
    /// The most bytes a name takes, length bytes and the root's zero included (RFC 1035 3.1).
    public static let maximumCount = 255

    /// The uncompressed wire form: length-prefixed labels and a zero.
    public let bytes: [UInt8]

    /// Bytes that are known to be well-formed.
    init(wire bytes: [UInt8]) {
        self.bytes = bytes
    }

    /// Bytes that are known to be well-formed, with ASCII upper case folded (RFC 4343) in place, where nobody else has them.
    /// Length bytes are below 64 and stay as they are.
    init(folding wire: consuming [UInt8]) {
        wire.withUnsafeMutableBytes { bytes in
            for index in bytes.indices where Self.isUpper(bytes[index]) { bytes[index] |= 0x20 }
        }
        bytes = wire
    }

    /// The wire form of a host name.
    public init(_ name: DomainName) {
        // A length takes the place before each label: that of the dot, but for the first.
        var bytes: [UInt8] = []
        bytes.reserveCapacity(name.bytes.count + 2)
        bytes.append(0)
        bytes += name.bytes
        bytes.append(0)
        var length = 0
        for index in 1..<bytes.count where bytes[index] == UInt8(ascii: ".") || index == bytes.count - 1 {
            bytes[length] = UInt8(index - length - 1)
            length = index
        }
        self.bytes = bytes
    }

    /// The root.
    public static let root = DNSWireName(wire: [0])

    /// Whether this is the root.
    public var isRoot: Bool { bytes.count == 1 }

    /// The labels, left-most first; the root's empty label is left out.
    public var labels: [ArraySlice<UInt8>] {
        var labels: [ArraySlice<UInt8>] = []
        var index = 0
        while index < bytes.count, bytes[index] != 0 {
            let end = index + 1 + Int(bytes[index])
            labels.append(bytes[(index + 1)..<end])
            index = end
        }
        return labels
    }

    /// The name with ASCII upper case folded (RFC 4343).
    public var folded: DNSWireName { bytes.contains(where: Self.isUpper) ? DNSWireName(folding: bytes) : self }

    private static func isUpper(_ byte: UInt8) -> Bool { byte &- UInt8(ascii: "A") < 26 }

    /// The bytes at once; see ``DomainName/hash(into:)``.
    public func hash(into hasher: inout Hasher) {
        bytes.withUnsafeBytes { hasher.combine(bytes: $0) }
    }

    /// Whether the name is `ancestor` or lies below it, case included.
    public func isAtOrBelow(_ ancestor: DNSWireName) -> Bool {
        var index = 0
        while index < bytes.count, bytes.count - index >= ancestor.bytes.count {
            if bytes[index...] == ancestor.bytes[...] { return true }
            index += 1 + Int(bytes[index])
        }
        return false
    }

    /// The host name this is; throws when a label holds a byte that no host name has, a dot or a NUL among them.
    public func domainName() throws(DomainName.ParseError) -> DomainName {
        var text: [UInt8] = []
        text.reserveCapacity(bytes.count)
        var index = 0
        while index < bytes.count, bytes[index] != 0 {
            let end = index + 1 + Int(bytes[index])
            if !text.isEmpty { text.append(UInt8(ascii: ".")) }
            let label = bytes[(index + 1)..<end]
            // It must not become a border between labels. Of other bytes the name itself says whether they may be there.
            if label.contains(UInt8(ascii: ".")) { throw .invalidByte(UInt8(ascii: ".")) }
            text += label
            index = end
        }
        return try DomainName(ascii: text)
    }
}

extension DNSWireName: CustomStringConvertible {
    /// Presentation form (RFC 1035 5.1): bytes that are not printable ASCII as `\DDD`, dots and backslashes escaped.
    /// Without the last dot, except for the root.
    public var description: String {
        guard !isRoot else { return "." }
        return labels.map { label in
            label.reduce(into: "") { text, byte in
                switch byte {
                case UInt8(ascii: "."), UInt8(ascii: "\\"):
                    text += "\\" + String(UnicodeScalar(byte))
                case 0x21...0x7e:
                    text.unicodeScalars.append(UnicodeScalar(byte))
                default:
                    let digits = String(byte)
                    text += "\\" + String(repeating: "0", count: 3 - digits.count) + digits
                }
            }
        }.joined(separator: ".")
    }
}
