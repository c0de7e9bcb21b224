public import NetPrimitives

/// Why text is not a target.
public enum TargetError: Error, Hashable, Sendable {
    /// No text.
    case empty
    /// `*` alone, which would be a rule for everything.
    case everything
    /// A `*` anywhere but once in the left-most label.
    case misplacedWildcard(String)
    /// A pattern without a name below which it stands: `api-*`.
    case patternWithoutParent(String)
    /// Letters outside of ASCII; the form that was probably meant, if it could be told.
    case notASCII(String, punycode: String?)
    /// A URL; the host in it, if there is one.
    case url(String, host: String)
    /// A name or address with a port behind it.
    case port(String, host: String)
    /// A label of more than 63 bytes.
    case labelTooLong(String)
    /// More than 253 bytes.
    case nameTooLong(String)
    /// An empty label: a leading dot or two dots in a row.
    case emptyLabel(String)
    /// A character that names do not have.
    case invalidCharacter(String, UInt8)
    /// Written like an IPv4 address, but not in its only accepted form.
    case malformedIPv4(String)
    /// Written like an IPv6 address, but not one.
    case malformedIPv6(String)
    /// An address with brackets or a zone around it.
    case decoratedIPv6(String)
    /// Something before the `/` that is no address, or a length out of bounds behind it.
    case malformedPrefix(String)
    /// Bits after the prefix length are set; the prefix that was probably meant.
    case hostBitsSet(String, IPPrefix)
}

extension TargetError: CustomStringConvertible {
    /// One clause for people: the text, what is wrong with it, and what to write.
    public var description: String {
        switch self {
        case .empty: "an empty target: expected a name, a wildcard, an IP address or a CIDR"
        case .everything: "\"*\" is not a target: use defaultAction: allow"
        case .misplacedWildcard(let text):
            "\"\(text)\" is not a target: one * may stand in the left-most label only, as in *.example.com or api-*.example.com"
        case .patternWithoutParent(let text):
            "\"\(text)\" is not a target: a wildcard needs a name to the right of it, as in *.example.com"
        case .notASCII(let text, let punycode?):
            "\"\(text)\" is not ASCII: write its punycode form \"\(punycode)\""
        case .notASCII(let text, nil): "\"\(text)\" is not ASCII: write its punycode form (xn--…)"
        case .url(let text, let host): "\"\(text)\" is a URL: write only its host\(host.isEmpty ? "" : ", \"\(host)\"")"
        case .port(let text, let host): "\"\(text)\" has a port: write target \"\(host)\" and list the port under ports"
        case .labelTooLong(let text): "\"\(text)\" is not a name: a label has more than 63 bytes"
        case .nameTooLong(let text): "\"\(text)\" is not a name: it has more than 253 bytes"
        case .emptyLabel(let text): "\"\(text)\" is not a name: it has an empty label"
        case .invalidCharacter(let text, let byte):
            "\"\(text)\" is not a name: \(Self.character(byte)) is not a letter, digit, hyphen or underscore"
        case .malformedIPv4(let text):
            "\"\(text)\" is neither a name nor an address: an IPv4 address has four decimal parts of 0...255 without leading zeros"
        case .malformedIPv6(let text): "\"\(text)\" is not an IPv6 address"
        case .decoratedIPv6(let text): "\"\(text)\" is not a target: write the IPv6 address without brackets and zone"
        case .malformedPrefix(let text):
            "\"\(text)\" is not a CIDR: expected an address, / and a prefix length of 0...32 (IPv4) or 0...128 (IPv6)"
        case .hostBitsSet(let text, let prefix):
            "\"\(text)\" has bits set after the prefix length: write \(prefix.address)/\(prefix.length)"
        }
    }

    private static func character(_ byte: UInt8) -> String {
        switch byte {
        case 0x20: "a space"
        case 0x21...0x7e: "\"\(Unicode.Scalar(byte))\""
        default: "byte 0x" + (byte < 16 ? "0" : "") + String(byte, radix: 16)
        }
    }
}

extension Target {
    /// Parses `example.com`, `*.example.com`, `api-*.example.com`, `192.0.2.7`, `192.0.2.0/24`, `2001:db8::/32`.
    /// Names are folded to lower case and lose one trailing dot; nothing else is repaired.
    public init(parsing text: String) throws(TargetError) {
        guard !text.isEmpty else { throw .empty }
        guard text != "*" else { throw .everything }
        let bytes = Array(text.utf8)
        guard bytes.allSatisfy({ $0 < 0x80 }) else {
            throw .notASCII(text, punycode: Punycode.encode(name: text))
        }
        try Self.refuseDecoration(text, bytes)
        if bytes.contains(UInt8(ascii: "*")) {
            try self.init(pattern: bytes, text)
        } else if bytes.contains(UInt8(ascii: "/")) || bytes.contains(UInt8(ascii: ":")) || IPAddress(text) != nil {
            self = .addresses(try Self.prefix(bytes, text))
        } else {
            self = .name(try Self.name(bytes[...], text))
        }
    }

    private static func refuseDecoration(_ text: String, _ bytes: [UInt8]) throws(TargetError) {
        if let scheme = firstRange(of: "://", in: bytes) {
            let host = bytes[(scheme + 3)...].prefix { !"/:?#".utf8.contains($0) }
            throw .url(text, host: String(decoding: host, as: UTF8.self))
        }
        if bytes.first == UInt8(ascii: "[") || (bytes.contains(UInt8(ascii: ":")) && bytes.contains(UInt8(ascii: "%")))
        {
            throw .decoratedIPv6(text)
        }
        let colons = bytes.indices.filter { bytes[$0] == UInt8(ascii: ":") }
        if colons.count == 1, let colon = colons.first,
            PortRange(parsing: String(decoding: bytes[(colon + 1)...], as: UTF8.self)) != nil
        {
            throw .port(text, host: String(decoding: bytes[..<colon], as: UTF8.self))
        }
    }

    private static func firstRange(of needle: String, in bytes: [UInt8]) -> Int? {
        bytes.indices.first { bytes[$0...].starts(with: needle.utf8) }
    }

    private static func prefix(_ bytes: [UInt8], _ text: String) throws(TargetError) -> IPPrefix {
        do {
            return try IPPrefix(parsing: text)
        } catch .hostBitsSet(let meant) {
            throw .hostBitsSet(text, meant)
        } catch {
            throw bytes.contains(UInt8(ascii: "/")) ? .malformedPrefix(text) : .malformedIPv6(text)
        }
    }

    private static func name(_ bytes: ArraySlice<UInt8>, _ text: String) throws(TargetError) -> DomainName {
        do {
            return try DomainName(ascii: bytes)
        } catch {
            switch error {
            case .empty, .emptyLabel: throw .emptyLabel(text)
            case .tooLong: throw .nameTooLong(text)
            case .labelTooLong: throw .labelTooLong(text)
            case .invalidByte(let byte): throw .invalidCharacter(text, byte)
            case .numericLastLabel: throw .malformedIPv4(text)
            }
        }
    }

    private init(pattern bytes: [UInt8], _ text: String) throws(TargetError) {
        let star = UInt8(ascii: "*")
        let label = bytes.prefix { $0 != UInt8(ascii: ".") }
        guard let position = label.firstIndex(of: star), !bytes[(position + 1)...].contains(star) else {
            throw .misplacedWildcard(text)
        }
        let rest = bytes[min(label.endIndex + 1, bytes.endIndex)...]
        guard !rest.isEmpty else { throw .patternWithoutParent(text) }
        let parent = try Self.name(rest, text)
        let (prefix, suffix) = (label[..<position], label[(position + 1)...])
        // What `*` stands for may be empty within a label, but not be a whole label.
        guard prefix.count + suffix.count <= 63 else { throw .labelTooLong(text) }
        guard max(prefix.count + suffix.count, 1) + 1 + parent.bytes.count <= 253 else { throw .nameTooLong(text) }
        if label.count == 1 {
            self = .subdomains(of: parent)
        } else {
            self = .label(prefix: try Self.fold(prefix, text), suffix: try Self.fold(suffix, text), parent: parent)
        }
    }

    private static func fold(_ bytes: ArraySlice<UInt8>, _ text: String) throws(TargetError) -> [UInt8] {
        var folded: [UInt8] = []
        for byte in bytes {
            guard let canonical = DomainName.fold(byte) else { throw .invalidCharacter(text, byte) }
            folded.append(canonical)
        }
        return folded
    }
}

extension Target: CustomStringConvertible {
    /// The text that parses to this target.
    public var description: String {
        switch self {
        case .name(let name): name.description
        case .subdomains(let parent): "*.\(parent)"
        case .label(let prefix, let suffix, let parent):
            String(decoding: prefix, as: UTF8.self) + "*" + String(decoding: suffix, as: UTF8.self) + ".\(parent)"
        case .addresses(let prefix): prefix.description
        }
    }
}
