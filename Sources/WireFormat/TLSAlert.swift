/// TLS alerts that we send in the clear, before any handshake (RFC 8446 6).
public enum TLSAlert {
    /// A record with the fatal alert access_denied (49): "the sender decided not to proceed with negotiation".
    public static let accessDenied: [UInt8] = [21, 3, 3, 0, 2, 2, 49]
}
