import HTTPTypes
import Hummingbird

/// OpenSandbox's vault of credentials, as the original answers where it does not intercept TLS: there is none.
enum CredentialVault {
    private static let path = "/credential-vault"
    /// Nobody's to ask for over this API, whatever the token.
    static let active = "/credential-vault/_active"

    /// Whether a path is the vault's.
    static func has(_ path: String) -> Bool { path == Self.path || path.hasPrefix("\(Self.path)/") }

    /// The answer to a request for one of its paths.
    static func answer(to request: Request, hasToken: Bool) -> Response {
        let path = request.uri.path
        let isRead = [.get, .head].contains(request.method)
        guard path != Self.path else {
            if isRead { return PlainText.answer("credential vault not found\n", .notFound) }
            guard [.post, .patch, .delete].contains(request.method) else {
                return PlainText.notAllowed("GET, POST, PATCH, DELETE")
            }
            let missing = hasToken ? "transparent mitmproxy: TLS is not intercepted here" : "egress API auth token"
            return PlainText.answer("credential vault requires \(missing)\n", .preconditionFailed)
        }
        let below = path.dropFirst(Self.path.count + 1)
        let isList = ["credentials", "bindings"].contains { below == $0 || below.hasPrefix("\($0)/") }
        guard isList || path == active else { return PlainText.answer("not found\n", .notFound) }
        guard isRead else { return PlainText.notAllowed("GET") }
        return path == active
            ? PlainText.answer("forbidden\n", .forbidden) : PlainText.answer("credential vault not found\n", .notFound)
    }
}
