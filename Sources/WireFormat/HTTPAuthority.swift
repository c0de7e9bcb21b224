public import NetPrimitives

/// A host with an optional port, as a Host field or a CONNECT target names it (RFC 3986 3.2, without userinfo). Two of
/// them are equal when they name the same host, whatever case or trailing dot they were written with.
public struct HTTPAuthority: Hashable, Sendable {
    /// A name or an address.
    public enum Host: Hashable, Sendable {
        /// A host name.
        case name(DomainName)
        /// An IPv4 address, or an IPv6 address that was written in brackets.
        case address(IPAddress)
    }

    /// The host.
    public let host: Host
    /// The port, 1...65535, when one was written.
    public let port: UInt16?

    /// An authority from its parts.
    public init(_ host: Host, port: UInt16? = nil) {
        self.host = host
        self.port = port
    }

    /// Parses `NAME`, `IPv4` or `[IPv6]`, each with an optional `:PORT`. Refused is what programs read differently:
    /// userinfo, short, octal or hexadecimal addresses, zones, an IPv6 address without brackets, an empty port.
    public init(ascii bytes: some Collection<UInt8>) throws(WireError) {
        try self.init(ascii: bytes, at: 0)
    }

    /// As ``init(ascii:)``, for text that stands at `offset` in a message.
    init(ascii bytes: some Collection<UInt8>, at offset: Int) throws(WireError) {
        let bytes = Array(bytes)
        guard !bytes.isEmpty else { throw WireError(offset: offset, problem: "the host is empty") }
        if let sign = bytes.firstIndex(of: UInt8(ascii: "@")) {
            throw WireError(offset: offset + sign, problem: "user information before the host")
        }
        var hostEnd = bytes.count
        if bytes[0] == UInt8(ascii: "[") {
            guard let bracket = bytes.firstIndex(of: UInt8(ascii: "]")) else {
                throw WireError(offset: offset, problem: "a bracket that is not closed")
            }
            guard let address = IPAddress(ascii: bytes[1..<bracket]), address.family == .v6 else {
                throw WireError(offset: offset, problem: "no IPv6 address in the brackets")
            }
            self.host = .address(address)
            hostEnd = bracket + 1
        } else {
            hostEnd = bytes.firstIndex(of: UInt8(ascii: ":")) ?? bytes.count
            self.host = try Self.parseHost(bytes[..<hostEnd], offset)
        }
        self.port = try Self.parsePort(bytes[hostEnd...], offset + hostEnd)
    }

    private static func parseHost(_ bytes: ArraySlice<UInt8>, _ offset: Int) throws(WireError) -> Host {
        if let address = IPAddress(ascii: bytes) { return .address(address) }
        guard let name = try? DomainName(ascii: bytes) else {
            throw WireError(offset: offset, problem: "the host is no name and no address")
        }
        return .name(name)
    }

    private static func parsePort(_ bytes: ArraySlice<UInt8>, _ offset: Int) throws(WireError) -> UInt16? {
        guard let colon = bytes.first else { return nil }
        guard colon == UInt8(ascii: ":"), let number = HTTPSyntax.decimal(bytes.dropFirst()),
            let port = UInt16(exactly: number), port > 0
        else { throw WireError(offset: offset, problem: "the port is not a number of 1 to 65535") }
        return port
    }
}

extension HTTPAuthority: CustomStringConvertible {
    /// `example.com:8080` or `[2001:db8::1]:8080`; without the port when there is none.
    public var description: String {
        if case .address(let address) = host, address.family == .v6 {
            return port.map { "[\(address)]:\($0)" } ?? "[\(address)]"
        }
        return port.map { "\(host):\($0)" } ?? "\(host)"
    }
}

extension HTTPAuthority.Host: CustomStringConvertible {
    /// The name, or the address without brackets.
    public var description: String {
        switch self {
        case .name(let name): name.description
        case .address(let address): address.description
        }
    }
}
