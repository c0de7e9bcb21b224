import Crypto
import FoundationEssentials

/// Where refusals are told, and the secret that shows that it is us who tell them.
public struct WebhookEndpoint: Sendable {
    /// Why an endpoint cannot be used.
    public struct FormatError: Error, CustomStringConvertible {
        /// One clause.
        public let description: String
    }

    /// The URL that is posted to.
    let url: String
    /// The URL without its path and query, which may hold what is nobody's business; for messages.
    let origin: String
    /// The host in the URL, an IPv6 address without its brackets.
    public let host: String
    /// The port in the URL, or the scheme's.
    public let port: UInt16
    /// Whether the scheme is `https`.
    let isTLS: Bool
    private let secret: SymmetricKey?

    /// The shortest secret, in bytes.
    private static let shortestSecret = 16

    /// An endpoint at an `http` or `https` URL. `secret` is what a file of it holds: white space around it is none of it.
    public init(url text: String, secret: [UInt8]? = nil) throws(FormatError) {
        guard let url = URL(string: text), let scheme = url.scheme?.lowercased(), ["http", "https"].contains(scheme),
            let host = url.host, !host.isEmpty, (1...65_535).contains(url.port ?? 80)
        else { throw FormatError(description: "expected a URL of http or https") }
        guard url.user == nil, url.password == nil else {
            throw FormatError(description: "a URL with a user or a password is not accepted")
        }
        guard url.fragment == nil else { throw FormatError(description: "a URL with a fragment is not accepted") }
        self.url = text
        self.host = host.hasPrefix("[") ? String(host.dropFirst().dropLast()) : host
        isTLS = scheme == "https"
        port = url.port.map { UInt16($0) } ?? (isTLS ? 443 : 80)
        origin = "\(scheme)://\(host.contains(":") ? "[\(host)]" : host)" + (url.port.map { ":\($0)" } ?? "")
        self.secret = try secret.map { bytes throws(FormatError) in
            let isSpace = { (byte: UInt8) in byte == 0x20 || (0x09...0x0d).contains(byte) }
            let trimmed = bytes.drop(while: isSpace).reversed().drop(while: isSpace).reversed()
            guard trimmed.count >= Self.shortestSecret else {
                throw FormatError(description: "a secret has at least \(Self.shortestSecret) bytes")
            }
            return SymmetricKey(data: Data(trimmed))
        }
    }

    /// What stands in a request's first line, as it stands in the URL: path and query. `nil` when there are characters in it
    /// that no request can hold (RFC 9112 3.2).
    var requestTarget: String? {
        let authority = url.drop { $0 != "/" }.dropFirst(2)
        let rest = authority.drop { $0 != "/" && $0 != "?" }
        guard rest.utf8.allSatisfy({ (0x21...0x7e).contains($0) }) else { return nil }
        return (rest.hasPrefix("/") ? "" : "/") + rest
    }

    /// The value of the header Host (RFC 9110 7.2).
    var hostField: String {
        let name = host.contains(":") ? "[\(host)]" : host
        return port == (isTLS ? 443 : 80) ? name : "\(name):\(port)"
    }

    /// The value of `X-Sandgate-Signature` for a body: `sha256=` and the HMAC-SHA256 (RFC 2104) of it in hexadecimal.
    /// `nil` without a secret.
    func signature(of body: [UInt8]) -> String? {
        guard let secret else { return nil }
        let code = HMAC<SHA256>.authenticationCode(for: body, using: secret)
        let digits = Array("0123456789abcdef".utf8)
        return "sha256="
            + String(decoding: code.flatMap { [digits[Int($0 >> 4)], digits[Int($0 & 15)]] }, as: UTF8.self)
    }
}
