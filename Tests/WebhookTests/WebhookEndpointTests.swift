import Testing

@testable import Webhook

@Suite struct WebhookEndpointTests {
    @Test(arguments: [
        ("http://siem.example/hook", "http://siem.example"),
        ("https://siem.example", "https://siem.example"),
        ("HTTPS://siem.example:8443/a/b?token=secret", "https://siem.example:8443"),
        ("http://127.0.0.1:9000/", "http://127.0.0.1:9000"), ("http://[::1]:9000/", "http://[::1]:9000"),
    ])
    func takesURLs(_ url: String, _ origin: String) throws {
        let endpoint = try WebhookEndpoint(url: url)
        #expect(endpoint.url == url)
        #expect(endpoint.origin == origin)
        #expect(endpoint.signature(of: [1]) == nil)
    }

    @Test(arguments: [
        "", "siem.example", "/hook", "ftp://siem.example/", "file:///etc/passwd", "http+unix://%2Frun%2Fx/",
        "unix:///x",
        "http://", "http:///hook", "http:hook", "javascript:alert(1)", "http://user@siem.example/",
        "http://user:word@siem.example/", "http://siem.example/#part", "http://siem.example:65536/",
        "http://siem.example:0/",
    ])
    func refusesWhatIsNone(_ url: String) {
        #expect(throws: WebhookEndpoint.FormatError.self) { try WebhookEndpoint(url: url) }
    }

    /// Test case 2 of RFC 4231 has too short a key for us; this is its fourth.
    @Test func signs() throws {
        let secret = Array(UInt8(1)...25)
        // 0x09 at an end would be white space; none is here.
        let endpoint = try WebhookEndpoint(url: "http://siem.example/", secret: secret)
        let body = [UInt8](repeating: 0xcd, count: 50)
        let expected = "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b"
        #expect(endpoint.signature(of: body) == "sha256=\(expected)")
    }

    @Test func secretIsWithoutWhiteSpaceAroundIt() throws {
        let bare = try WebhookEndpoint(url: "http://x.example/", secret: Array("sixteen bytes or".utf8))
        let file = try WebhookEndpoint(url: "http://x.example/", secret: Array("\t sixteen bytes or\r\n".utf8))
        #expect(bare.signature(of: [7]) == file.signature(of: [7]))
        #expect(bare.signature(of: [7]) != bare.signature(of: [8]))
    }

    @Test(arguments: ["", "\n", "fifteen bytes!!", "fifteen bytes!!\n   \n"])
    func refusesShortSecrets(_ text: String) {
        #expect(throws: WebhookEndpoint.FormatError.self) {
            try WebhookEndpoint(url: "http://x.example/", secret: Array(text.utf8))
        }
    }
}
