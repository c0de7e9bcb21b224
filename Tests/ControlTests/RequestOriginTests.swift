import Testing

@testable import Control

/// Which requests a browser sends for somebody else's page.
@Suite struct RequestOriginTests {
    @Test(arguments: [
        nil, "", "localhost", "localhost:8080", "LocalHost:1", "node.localhost", "127.0.0.1", "127.0.0.1:7480", "[::1]",
        "[::1]:7480", "192.0.2.7:80", "[2001:db8::7]", "localhost.",
    ])
    func hostIsOurs(_ host: String?) {
        #expect(RequestOrigin(host: host).hasLocalHost)
    }

    @Test(arguments: [
        "evil.example", "evil.example:8080", "localhost.evil.example", "notlocalhost", "127.0.0.1.evil.example",
        "evil.example:80:80", "[::1].evil.example", "[::1", "localhost:evil", "unix", "127.1", "0x7f.0.0.1", ".",
        "evil.example#localhost", "::1]",
    ])
    func hostMayBeAnybodys(_ host: String) {
        #expect(!RequestOrigin(host: host).hasLocalHost)
    }

    @Test(
        arguments: [
            (nil, nil), ("http://localhost:8080", nil), ("http://localhost:8080", "same-origin"), (nil, "same-origin"),
            (nil, "none"), ("HTTP://LOCALHOST:8080", nil), ("https://localhost:8080", nil),
        ] as [(String?, String?)]
    )
    func isOfOurPageOrOfNone(_ origin: String?, _ site: String?) {
        #expect(!RequestOrigin(host: "localhost:8080", origin: origin, site: site).isCrossSite)
    }

    @Test(
        arguments: [
            ("http://evil.example", nil), ("null", nil), ("", nil), ("http://localhost", nil),
            ("http://localhost:80801", nil),
            ("http://localhost:8081", "same-site"), (nil, "cross-site"), (nil, "same-site"), (nil, "anything"),
            ("http://localhost:8080", "cross-site"), ("file://", nil), ("localhost:8080", nil),
            ("http://localhost:8080.evil.example", nil),
        ] as [(String?, String?)]
    )
    func isOfAnotherSite(_ origin: String?, _ site: String?) {
        #expect(RequestOrigin(host: "localhost:8080", origin: origin, site: site).isCrossSite)
    }

    @Test func aLinkMayLeadToThePage() {
        #expect(!RequestOrigin(host: "localhost", site: "cross-site", isForPage: true).isCrossSite)
        #expect(RequestOrigin(host: "localhost", origin: "http://evil.example", isForPage: true).isCrossSite)
    }

    @Test func withoutAHostNoPageIsOurs() {
        #expect(RequestOrigin(host: nil, origin: "http://evil.example").isCrossSite)
    }
}
