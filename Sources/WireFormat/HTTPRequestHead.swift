/// A request's head that can be read in one way only (RFC 9112 3 and 5).
public struct HTTPRequestHead: Hashable, Sendable {
    /// What is asked for, in the four forms of RFC 9112 3.2.
    public enum Target: Hashable, Sendable {
        /// A path with an optional query.
        case origin([UInt8])
        /// An `http` URI, as clients of a proxy send it; its authority is the one of the Host field. `pathAndQuery` is
        /// what a server is to be asked for.
        case absolute(HTTPAuthority, pathAndQuery: [UInt8])
        /// CONNECT's host and port.
        case authority(HTTPAuthority)
        /// `*`: the server as a whole (OPTIONS).
        case asterisk
    }

    /// The versions of HTTP/1.
    enum Version: Hashable, Sendable {
        case http10
        case http11
    }

    /// The method, a token; case matters.
    public let method: String
    /// What is asked for.
    public let target: Target
    /// The host that the request is for: the Host field, and for CONNECT the target.
    public let host: HTTPAuthority
    /// How the body ends; never ``HTTPFraming/untilClose``.
    public let framing: HTTPFraming
    /// How many bytes the head took, the empty line included.
    public let length: Int
    /// Whether the client means to send another request on the connection.
    public let isPersistent: Bool
    /// Whether it is a WebSocket handshake (RFC 6455 4.1).
    public let asksForWebSocket: Bool

    let version: Version
    /// The fields as they came.
    let fields: [HTTPField]
    /// What the Connection fields name, in lower case.
    let connectionOptions: Set<String>
}

// MARK: - Writing

extension HTTPRequestHead {
    /// Fields that concern one connection only (RFC 9110 7.6.1), or offer an upgrade to a protocol that would not be judged.
    private static let hopByHop: Set<String> = [
        "connection", "keep-alive", "proxy-connection", "proxy-authenticate", "proxy-authorization", "te", "trailer",
        "upgrade", "http2-settings",
    ]

    /// The head written anew, as it is sent to the server: the target in origin form, Host and framing from what was
    /// understood rather than from what was written, no hop-by-hop fields, everything else as it was and in its order.
    public func forwarded() -> [UInt8] {
        var bytes = Array(method.utf8)
        bytes.append(HTTPSyntax.space)
        bytes += forwardedTarget
        bytes += Array((version == .http11 ? " HTTP/1.1\r\n" : " HTTP/1.0\r\n").utf8)
        for field in fields where !Self.hopByHop.contains(field.key) && !connectionOptions.contains(field.key) {
            bytes += field.name
            bytes += [UInt8(ascii: ":"), HTTPSyntax.space]
            bytes += forwardedValue(of: field)
            bytes += [HTTPSyntax.carriageReturn, HTTPSyntax.lineFeed]
        }
        if !fields.contains(where: { $0.key == "host" }) { bytes += Array("Host: \(host)\r\n".utf8) }
        if asksForWebSocket {
            bytes += Array("Connection: Upgrade\r\nUpgrade: websocket\r\n".utf8)
        } else if !isPersistent {
            bytes += Array("Connection: close\r\n".utf8)
        }
        return bytes + [HTTPSyntax.carriageReturn, HTTPSyntax.lineFeed]
    }

    private var forwardedTarget: [UInt8] {
        switch target {
        case .origin(let path), .absolute(_, pathAndQuery: let path): path
        case .authority(let authority): Array(authority.description.utf8)
        case .asterisk: [UInt8(ascii: "*")]
        }
    }

    private func forwardedValue(of field: HTTPField) -> [UInt8] {
        switch field.key {
        case "host": Array(host.description.utf8)
        case "transfer-encoding": Array("chunked".utf8)
        default: field.value
        }
    }
}
