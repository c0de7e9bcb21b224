/// An address block in CIDR notation (RFC 4632). Host bits are always zero.
public struct IPPrefix: Hashable, Sendable {
    /// The lowest address of the block.
    public let address: IPAddress
    /// The number of leading bits that are fixed: 0...32 or 0...128.
    @inlinable public var length: Int { Int(shortLength) }
    // A byte behind the address's last one; a word would take eight more, in every live connection's rule too.
    @usableFromInline let shortLength: UInt8

    /// The block of `length` bits that holds `address`; host bits are cleared. Traps when `length` is out of bounds.
    public init(_ address: IPAddress, length: Int) {
        precondition((0...address.family.bitWidth).contains(length), "prefix length out of bounds")
        let cleared = address.value & ~Self.hostMask(address.family, length)
        self.address = IPAddress(family: address.family, value: cleared)!
        self.shortLength = UInt8(length)
    }

    /// The block that is one address.
    public init(host address: IPAddress) {
        self.init(address, length: address.family.bitWidth)
    }

    /// The address family.
    public var family: IPAddress.Family { address.family }
    /// The lowest address.
    public var first: IPAddress { address }
    /// The highest address.
    public var last: IPAddress {
        IPAddress(family: family, value: address.value | Self.hostMask(family, length))!
    }

    /// Whether `other` lies in the block. An address of the other family never does.
    public func contains(_ other: IPAddress) -> Bool {
        other.family == family && other.value & ~Self.hostMask(family, length) == address.value
    }

    /// Whether all of `other` lies in the block.
    public func contains(_ other: IPPrefix) -> Bool {
        other.length >= length && contains(other.address)
    }

    private static func hostMask(_ family: IPAddress.Family, _ length: Int) -> UInt128 {
        let hostBits = family.bitWidth - length
        return hostBits == 128 ? .max : (1 << UInt128(hostBits)) - 1
    }
}

extension IPPrefix: CustomStringConvertible {
    /// The address alone for a single host, else `address/length`.
    public var description: String {
        length == family.bitWidth ? address.description : "\(address)/\(length)"
    }

    /// Why text is not a prefix.
    public enum ParseError: Error, Hashable, Sendable {
        /// Neither an address nor `address/length` with a length in bounds.
        case malformed
        /// Bits after the prefix length are set; the prefix that was probably meant is given.
        case hostBitsSet(IPPrefix)
    }

    /// Parses `192.0.2.7`, `192.0.2.0/24` or `2001:db8::/32`.
    public init(parsing text: String) throws(ParseError) {
        let bytes = Array(text.utf8)
        let slash = bytes.firstIndex(of: UInt8(ascii: "/")) ?? bytes.count
        guard let address = IPAddress(ascii: bytes[..<slash]) else { throw .malformed }
        guard slash < bytes.count else {
            self.init(host: address)
            return
        }
        guard let length = decimal(bytes[(slash + 1)...], maximum: address.family.bitWidth) else { throw .malformed }
        self.init(address, length: length)
        if self.address != address { throw .hostBitsSet(self) }
    }
}

extension IPPrefix {
    /// fe80::/10 (RFC 4291 2.5.6): addresses that mean something on their link alone.
    public static let linkLocal6 = IPPrefix(IPAddress(v6: 0xfe80 << 112), length: 10)
}

extension IPAddress {
    /// Whether it leads to the machine itself: 127.0.0.0/8 (RFC 1122 3.2.1.3) and ::1 (RFC 4291 2.5.3).
    public var isLoopback: Bool {
        family == .v4 ? IPPrefix(IPAddress(v4: 0x7f00_0000), length: 8).contains(self) : self == IPAddress(v6: 1)
    }
}
