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
