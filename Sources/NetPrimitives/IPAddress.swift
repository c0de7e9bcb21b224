/// An IPv4 or IPv6 address. Canonical: the same address is always the same value, and an IPv4-mapped IPv6
/// address stays an IPv6 address (ask ``embeddedIPv4`` for what it reaches).
public struct IPAddress: Hashable, Sendable {
    /// The address family.
    public enum Family: UInt8, Hashable, Sendable {
        /// RFC 791, 32 bits.
        case v4
        /// RFC 4291, 128 bits.
        case v6

        /// The width of an address in bits: 32 or 128.
        public var bitWidth: Int { self == .v4 ? 32 : 128 }
    }

    // In halves, and with the small one last: a UInt128 is aligned to 16 bytes, with which an endpoint would take 48 bytes in
    // place of 24, and every connection and pin has several.
    @usableFromInline let high: UInt64
    @usableFromInline let low: UInt64
    /// The address family.
    public let family: Family

    /// The address as a number in host order; an IPv4 address stands in the low 32 bits.
    @inlinable public var value: UInt128 { UInt128(high) << 64 | UInt128(low) }

    private init(_ family: Family, _ value: UInt128) {
        high = UInt64(truncatingIfNeeded: value >> 64)
        low = UInt64(truncatingIfNeeded: value)
        self.family = family
    }

    /// An IPv4 address from its number in host order.
    public init(v4 value: UInt32) {
        self.init(.v4, UInt128(value))
    }

    /// An IPv6 address from its number in host order.
    public init(v6 value: UInt128) {
        self.init(.v6, value)
    }

    /// An address of `family` from a number in host order; `nil` when an IPv4 number has more than 32 bits.
    public init?(family: Family, value: UInt128) {
        if family == .v4 && value > 0xffff_ffff { return nil }
        self.init(family, value)
    }

    /// An address from 4 or 16 bytes in network order; `nil` for any other count.
    @inlinable public init?(networkBytes bytes: some Collection<UInt8>) {
        switch bytes.count {
        case 4: self.init(v4: UInt32(truncatingIfNeeded: bytes.reduce(0 as UInt64) { $0 << 8 | UInt64($1) }))
        case 16:
            let (high, low) = (bytes.prefix(8), bytes.dropFirst(8))
            self.init(
                v6: UInt128(high.reduce(0 as UInt64) { $0 << 8 | UInt64($1) }) << 64
                    | UInt128(low.reduce(0 as UInt64) { $0 << 8 | UInt64($1) })
            )
        default: return nil
        }
    }

    /// The 4 or 16 bytes in network order.
    public var networkBytes: [UInt8] {
        let count = family.bitWidth / 8
        return (0..<count).map { UInt8(truncatingIfNeeded: value >> UInt128(8 * (count - 1 - $0))) }
    }
}

extension IPAddress: Comparable {
    /// IPv4 before IPv6, then by number.
    public static func < (left: Self, right: Self) -> Bool {
        left.family == right.family ? left.value < right.value : left.family == .v4
    }
}

// MARK: - Addresses inside addresses

extension IPAddress {
    /// The IPv4 addresses that an IPv6 address stands for or leads to: IPv4-mapped (RFC 4291 2.5.5.2),
    /// IPv4-compatible (2.5.5.1), NAT64 (RFC 6052 2.1 and RFC 8215), 6to4 (RFC 3056) and Teredo (RFC 4380:
    /// server and client), ISATAP (RFC 5214). A judgement must hold for each of them as well. Empty for most addresses.
    public var embeddedIPv4: [IPAddress] {
        guard family == .v6 else { return [] }
        let low = UInt32(truncatingIfNeeded: value)
        let high = UInt32(truncatingIfNeeded: value >> 96)
        switch true {
        case value >> 32 == 0xffff,  // ::ffff:a.b.c.d
            value >> 32 == 0 && value > 1,  // ::a.b.c.d, not :: and ::1
            value >> 32 == 0xffff_0000,  // ::ffff:0:a.b.c.d (SIIT, RFC 2765)
            value >> 32 == 0x0064_ff9b << 64,  // 64:ff9b::a.b.c.d
            value >> 80 == 0x0064_ff9b_0001:  // 64:ff9b:1::/48
            return [IPAddress(v4: low)]
        case high >> 16 == 0x2002:
            return [IPAddress(v4: UInt32(truncatingIfNeeded: value >> 80))]
        case high == 0x2001_0000:
            return [IPAddress(v4: UInt32(truncatingIfNeeded: value >> 64)), IPAddress(v4: ~low)]
        case UInt32(truncatingIfNeeded: value >> 32) & 0xfcff_ffff == 0x0000_5efe:
            return [IPAddress(v4: low)]
        default:
            return []
        }
    }
}

// MARK: - Text

extension IPAddress: CustomStringConvertible, LosslessStringConvertible {
    /// Dotted decimal, or RFC 5952 text for IPv6.
    public var description: String {
        guard family == .v6 else {
            return networkBytes.map { String($0) }.joined(separator: ".")
        }
        let groups = (0..<8).map { UInt16(truncatingIfNeeded: value >> UInt128(16 * (7 - $0))) }
        if value >> 32 == 0xffff {
            return "::ffff:" + IPAddress(v4: UInt32(truncatingIfNeeded: value)).description
        }
        // RFC 5952 4.2: the longest run of two or more zero groups, the first of equals.
        var best = 0..<0
        var start = 0
        while start < 8 {
            guard groups[start] == 0 else {
                start += 1
                continue
            }
            var end = start
            while end < 8 && groups[end] == 0 { end += 1 }
            if end - start > max(best.count, 1) { best = start..<end }
            start = end
        }
        func text(_ slice: ArraySlice<UInt16>) -> String {
            slice.map { String($0, radix: 16) }.joined(separator: ":")
        }
        return best.isEmpty
            ? text(groups[...]) : text(groups[..<best.lowerBound]) + "::" + text(groups[best.upperBound...])
    }

    /// Parses text; see ``init(ascii:)``.
    public init?(_ text: String) {
        var copy = text
        guard let parsed = copy.withUTF8({ IPAddress(ascii: $0) }) else { return nil }
        self = parsed
    }

    /// Parses canonical-form text: exactly four decimal parts without leading zeros, or IPv6 as RFC 4291 2.2 writes it
    /// (with an optional dotted tail). No zone, no brackets, no short, octal or hexadecimal IPv4 forms: what different
    /// programs read differently is refused.
    public init?(ascii bytes: some Collection<UInt8>) {
        let bytes = Array(bytes)
        guard bytes.count <= 45 else { return nil }
        if bytes.contains(UInt8(ascii: ":")) {
            guard let value = Self.parseIPv6(bytes) else { return nil }
            self.init(v6: value)
        } else {
            guard let value = Self.parseIPv4(bytes[...]) else { return nil }
            self.init(v4: value)
        }
    }

    private static func parseIPv4(_ bytes: ArraySlice<UInt8>) -> UInt32? {
        let parts = bytes.split(separator: UInt8(ascii: "."), omittingEmptySubsequences: false)
        guard parts.count == 4 else { return nil }
        var value: UInt32 = 0
        for part in parts {
            guard let octet = decimal(part, maximum: 255) else { return nil }
            value = value << 8 | UInt32(octet)
        }
        return value
    }

    private static func parseIPv6(_ bytes: [UInt8]) -> UInt128? {
        let colon = UInt8(ascii: ":")
        var groups: [UInt16] = []
        var gap: Int?
        var index = 0
        if bytes.starts(with: [colon]) {
            guard bytes.count >= 2, bytes[1] == colon else { return nil }
            gap = 0
            index = 2
        }
        while index < bytes.count {
            let end = bytes[index...].firstIndex(of: colon) ?? bytes.count
            let part = bytes[index..<end]
            if part.contains(UInt8(ascii: ".")) {
                guard end == bytes.count, let tail = parseIPv4(part) else { return nil }
                groups += [UInt16(tail >> 16), UInt16(truncatingIfNeeded: tail)]
                index = end
                break
            }
            guard let group = hexadecimal(part) else { return nil }
            groups.append(group)
            guard groups.count <= 8 else { return nil }
            if end == bytes.count {
                index = end
                break
            }
            index = end + 1
            guard index < bytes.count else { return nil }  // one trailing colon
            if bytes[index] == colon {
                guard gap == nil else { return nil }
                gap = groups.count
                index += 1
            }
        }
        if let gap {
            guard groups.count < 8 else { return nil }
            groups.insert(contentsOf: Array(repeating: 0, count: 8 - groups.count), at: gap)
        }
        guard groups.count == 8 else { return nil }
        return groups.reduce(0) { $0 << 16 | UInt128($1) }
    }

    private static func hexadecimal(_ part: ArraySlice<UInt8>) -> UInt16? {
        guard (1...4).contains(part.count) else { return nil }
        var value: UInt16 = 0
        for byte in part {
            let digit: UInt8
            switch byte {
            case UInt8(ascii: "0")...UInt8(ascii: "9"): digit = byte - UInt8(ascii: "0")
            case UInt8(ascii: "a")...UInt8(ascii: "f"): digit = byte - UInt8(ascii: "a") + 10
            case UInt8(ascii: "A")...UInt8(ascii: "F"): digit = byte - UInt8(ascii: "A") + 10
            default: return nil
            }
            value = value << 4 | UInt16(digit)
        }
        return value
    }
}

/// A decimal number without sign, leading zero or white space; `nil` when malformed or above `maximum` (at most 5 digits).
func decimal(_ text: some Collection<UInt8>, maximum: Int) -> Int? {
    guard (1...5).contains(text.count) else { return nil }
    if text.count > 1 && text.first == UInt8(ascii: "0") { return nil }
    var value = 0
    for byte in text {
        guard (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte) else { return nil }
        value = value * 10 + Int(byte - UInt8(ascii: "0"))
    }
    return value <= maximum ? value : nil
}
