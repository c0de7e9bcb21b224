public import WireFormat

/// What a TCP connection turns out to be, told from its first bytes. Fed with ever longer prefixes of what the client
/// sent (`MSG_PEEK` takes nothing away, so nothing has to be replayed); the answer depends on the bytes alone, not on
/// how they were split over segments.
public struct FirstBytes {
    /// What the bytes so far say.
    public enum Sighting: Hashable, Sendable {
        /// Not decided; at least this many bytes in all are needed.
        case needMore(atLeast: Int)
        /// A complete TLS ClientHello.
        case clientHello(ClientHello)
        /// A complete HTTP/1 request head.
        case httpRequest(HTTPRequestHead)
        /// Neither TLS nor HTTP/1.
        case opaque
        /// Begins as TLS does and breaks its format.
        case malformedHello(WireError)
        /// Begins as HTTP/1 does and breaks its format, or can be read in two ways.
        case malformedHTTP(WireError)
    }

    private var tls: ClientHelloParser? = ClientHelloParser()
    private var http: HTTPRequestHeadParser? = HTTPRequestHeadParser()

    /// Whether the bytes so far may be the beginning of a ClientHello.
    public var mayBecomeTLS: Bool { tls != nil }

    /// Before the first byte.
    public init() {}

    /// Looks at everything received so far.
    public mutating func examine(_ bytes: [UInt8]) -> Sighting {
        guard !bytes.isEmpty else { return .needMore(atLeast: 1) }
        if tls != nil {
            switch tls!.parse(bytes) {
            case .needMore(let count): return .needMore(atLeast: count)
            case .hello(let hello): return .clientHello(hello)
            case .malformed(let error): return .malformedHello(error)
            case .notTLS: tls = nil
            }
        }
        if http != nil {
            switch http!.parse(bytes) {
            case .needMore(let count): return .needMore(atLeast: count)
            case .head(let head): return .httpRequest(head)
            case .malformed(let error): return .malformedHTTP(error)
            case .notHTTP, .http2Preface: http = nil
            }
        }
        return .opaque
    }
}
