/// An address with a port: one end of a TCP connection or UDP flow.
public struct Endpoint: Hashable, Sendable {
    /// The address.
    public let address: IPAddress
    /// The port in host order.
    public let port: UInt16

    /// An endpoint from its parts.
    public init(_ address: IPAddress, _ port: UInt16) {
        self.address = address
        self.port = port
    }
}

extension Endpoint: CustomStringConvertible {
    /// `192.0.2.1:53` or `[2001:db8::1]:53`.
    public var description: String {
        address.family == .v4 ? "\(address):\(port)" : "[\(address)]:\(port)"
    }

    /// Parses `IP`, `IP:PORT` or `[IPv6]:PORT`; a missing port becomes `defaultPort`. `nil` when malformed or port 0.
    public init?(parsing text: String, defaultPort: UInt16) {
        if let address = IPAddress(text) {
            self.init(address, defaultPort)
            return
        }
        guard let colon = text.lastIndex(of: ":"),
            let port = decimal(text[text.index(after: colon)...].utf8, maximum: 65535), port > 0
        else { return nil }
        var host = text[..<colon]
        let bracketed = host.hasPrefix("[") && host.hasSuffix("]")
        if bracketed { host = host.dropFirst().dropLast() }
        guard let address = IPAddress(String(host)), bracketed == (address.family == .v6) else { return nil }
        self.init(address, UInt16(port))
    }
}
