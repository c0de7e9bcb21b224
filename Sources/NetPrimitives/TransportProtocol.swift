/// A transport protocol that a policy can speak of. Every other one is always refused.
public enum TransportProtocol: UInt8, Hashable, Sendable, CaseIterable {
    /// IANA protocol number 6, RFC 9293.
    case tcp = 6
    /// IANA protocol number 17, RFC 768.
    case udp = 17
}

extension TransportProtocol: CustomStringConvertible {
    /// `tcp` or `udp`.
    public var description: String { self == .tcp ? "tcp" : "udp" }
}
