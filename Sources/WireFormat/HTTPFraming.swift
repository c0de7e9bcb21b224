/// How the end of a message body is found (RFC 9112 6.3).
public enum HTTPFraming: Hashable, Sendable {
    /// There is no body.
    case none
    /// So many bytes.
    case length(UInt64)
    /// Chunks, up to one of no bytes and a trailer section.
    case chunked
    /// Everything until the connection ends; responses only.
    case untilClose
}
