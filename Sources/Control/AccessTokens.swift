import Crypto
import FoundationEssentials
import HTTPTypes
import Hummingbird

/// The tokens that open the API over TCP. They are kept as digests, and all of them are compared with each that is
/// presented, so that neither time nor memory tells anything of them.
public struct AccessTokens: Sendable {
    /// What a token opens.
    public enum Scope: Sendable {
        /// Everything.
        case full
        /// Asking, and changing nothing.
        case readOnly
    }

    private let digests: [(digest: [UInt8], scope: Scope)]

    /// Why a file of tokens cannot be used.
    public struct FormatError: Error, CustomStringConvertible {
        /// The line, from 1, and what is wrong with it.
        public let description: String
    }

    /// The shortest token, in bytes.
    private static let shortest = 16

    /// Reads a file: a token a line, followed by `read-only` where it may change nothing; `#` begins a comment.
    public init(parsing text: String) throws(FormatError) {
        var digests: [(digest: [UInt8], scope: Scope)] = []
        for (index, line) in text.split(separator: "\n", omittingEmptySubsequences: false).enumerated() {
            let words = line.prefix { $0 != "#" }.split(whereSeparator: \.isWhitespace)
            guard let token = words.first else { continue }
            guard token.utf8.count >= Self.shortest else {
                throw FormatError(description: "line \(index + 1): a token has at least \(Self.shortest) bytes")
            }
            switch words.dropFirst().first {
            case nil: digests.append((Self.digest(String(token)), .full))
            case "read-only" where words.count == 2: digests.append((Self.digest(String(token)), .readOnly))
            default: throw FormatError(description: "line \(index + 1): expected a token, and read-only or nothing")
            }
        }
        guard !digests.isEmpty else { throw FormatError(description: "there is no token") }
        self.digests = digests
    }

    private static func digest(_ token: String) -> [UInt8] { Array(SHA256.hash(data: Data(token.utf8))) }

    /// What `token` opens; `nil` for nothing.
    func scope(of token: String) -> Scope? {
        let presented = Self.digest(token)
        var found: Scope?
        for (digest, scope) in digests {
            var difference: UInt8 = 0
            for (left, right) in zip(digest, presented) { difference |= left ^ right }
            if difference == 0 { found = scope }
        }
        return found
    }
}

/// Lets requests through that present a token (RFC 6750: `Authorization: Bearer TOKEN`).
struct TokenMiddleware<Context: RequestContext>: RouterMiddleware {
    let tokens: AccessTokens

    func handle(
        _ request: Request,
        context: Context,
        next: (Request, Context) async throws -> Response
    ) async throws -> Response {
        // Asked by whoever looks whether we live; and the page asks for the token itself.
        if request.uri.path == "/healthz" || OperatorPage.paths.contains(request.uri.path) {
            return try await next(request, context)
        }
        let words = (request.headers[.authorization] ?? "").split(separator: " ")
        let scope = words.count == 2 && words[0].lowercased() == "bearer" ? tokens.scope(of: String(words[1])) : nil
        guard let scope else {
            throw APIError(
                status: .unauthorized,
                code: "unauthorized",
                message: "expected Authorization: Bearer TOKEN",
                headers: [.wwwAuthenticate: "Bearer"]
            )
        }
        let isReading =
            [.get, .head].contains(request.method) || request.uri.path.hasPrefix("/v1/policies/")
        guard scope == .full || isReading else {
            throw APIError(status: .forbidden, code: "forbidden", message: "this token is read-only")
        }
        return try await next(request, context)
    }
}
