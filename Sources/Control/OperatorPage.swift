import HTTPTypes
import Hummingbird

/// The page for operators: three files that hold nothing secret, so they need no token. What they show comes from the API,
/// by the same rules as for everybody.
enum OperatorPage {
    private struct File {
        let path: String
        let type: String
        let bytes: [UInt8]
    }

    private static var files: [File] {
        [
            File(path: "/", type: "text/html; charset=utf-8", bytes: PackageResources.page_html),
            File(path: "/page.css", type: "text/css; charset=utf-8", bytes: PackageResources.page_css),
            File(path: "/page.js", type: "text/javascript; charset=utf-8", bytes: PackageResources.page_js),
        ]
    }

    /// What is served without a token.
    static let paths: Set<String> = ["/", "/page.css", "/page.js"]

    /// Sandboxes choose much of what is shown. The page never makes markup of it; and should it, nothing would run: scripts
    /// are our file alone, and none can be made of text.
    private static let protection: HTTPFields = [
        .contentSecurityPolicy: [
            "default-src 'none'", "script-src 'self'", "style-src 'self'", "connect-src 'self'",
            "frame-ancestors 'none'", "base-uri 'none'", "form-action 'none'", "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        ].joined(separator: "; "),
        .xContentTypeOptions: "nosniff",
        .referrerPolicy: "no-referrer",
        .crossOriginOpenerPolicy: "same-origin",
        .crossOriginResourcePolicy: "same-origin",
    ]

    static func add(to router: Router<some RequestContext>) {
        for file in files {
            router.get(RouterPath(file.path)) { _, _ in
                Answer.raw(file.bytes, type: file.type, headers: protection)
            }
        }
    }
}

extension HTTPField.Name {
    fileprivate static let referrerPolicy = HTTPField.Name("Referrer-Policy")!
    fileprivate static let crossOriginOpenerPolicy = HTTPField.Name("Cross-Origin-Opener-Policy")!
}
