import HTTPTypes
import Hummingbird
import NetPrimitives

/// Where a request comes from, as far as a browser tells: web pages of others must not use the browser of somebody who
/// can reach the API. Two ways lead there, and each has its own end:
///
///     a page of another site asks us         the browser says so: Origin, Sec-Fetch-Site  ─▶ must be our own page
///     a name of theirs leads to our address  to the browser that is the same site; Host    ─▶ must be a name that nobody
///     (DNS rebinding)                        says the name                                    else can lead here
///
/// Over TCP the second way ends at the token, which a page under another name does not have; so there the node may be
/// called by any name. The Unix socket asks for no token, and a browser gets to it through `ssh -L` or socat.
struct RequestOrigin {
    /// `Host`, as it was sent (RFC 9110 7.2).
    var host: String?
    /// `Origin` (RFC 6454 7), which browsers send with whatever may change something.
    var origin: String?
    /// `Sec-Fetch-Site` (Fetch Metadata Request Headers, W3C), which they send to trustworthy origins such as localhost.
    var site: String?
    /// Whether it asks for the page itself. A link may lead to it from anywhere; it holds nothing secret, and cannot be
    /// framed.
    var isForPage = false

    /// Whether `Host` is a name that leads nowhere but to the machine itself (RFC 6761 6.3), an address, or nothing.
    var hasLocalHost: Bool {
        guard let host, !host.isEmpty else { return true }
        guard let name = Self.name(inAuthority: host) else { return false }
        return name == "localhost" || name.hasSuffix(".localhost") || IPAddress(name) != nil
    }

    /// Whether a page of another site sent it.
    var isCrossSite: Bool {
        if let site, !isForPage, !["same-origin", "none"].contains(site.lowercased()) { return true }
        guard let origin else { return false }
        // `null` for pages that the browser keeps apart from every site, and anything else that is no web page's.
        for scheme in ["http://", "https://"] where origin.lowercased().hasPrefix(scheme) {
            return origin.dropFirst(scheme.utf8.count).lowercased() != (host ?? "").lowercased()
        }
        return true
    }

    /// The name or address in `name:port`, `[IPv6]:port`, or either without the port, in lower case and without a dot at
    /// its end.
    private static func name(inAuthority text: String) -> String? {
        var name = text.lowercased()[...]
        if let colon = name.lastIndex(of: ":"), !name[colon...].contains("]") {
            guard name[name.index(after: colon)...].utf8.allSatisfy({ (0x30...0x39).contains($0) }) else { return nil }
            name = name[..<colon]
        }
        if name.hasPrefix("[") {
            guard name.hasSuffix("]") else { return nil }
            return String(name.dropFirst().dropLast())
        }
        return String(name.hasSuffix(".") ? name.dropLast() : name)
    }
}

/// Refuses what other sites' pages have a browser send. See ``RequestOrigin``.
struct OriginMiddleware<Context: RequestContext>: RouterMiddleware {
    /// Whether whoever gets here is let in without a token.
    let isOpen: Bool

    func handle(
        _ request: Request,
        context: Context,
        next: (Request, Context) async throws -> Response
    ) async throws -> Response {
        let origin = RequestOrigin(
            host: request.head.authority,
            origin: request.headers[.origin],
            site: request.headers[.secFetchSite],
            isForPage: request.method == .get && request.uri.path == "/"
        )
        guard !isOpen || origin.hasLocalHost else {
            throw APIError(
                status: .misdirectedRequest,
                code: "foreign-host",
                message: "over the socket the host is localhost or an address, not \(origin.host ?? "")"
            )
        }
        guard !origin.isCrossSite else {
            throw APIError(status: .forbidden, code: "cross-site", message: "a page of another site sent this request")
        }
        return try await next(request, context)
    }
}

extension HTTPField.Name {
    /// `Sec-Fetch-Site` of the W3C's Fetch Metadata Request Headers.
    fileprivate static let secFetchSite = HTTPField.Name("Sec-Fetch-Site")!
}
