import Testing
import WireFormat

@Suite struct HTTPForwardedHeadTests {
    private func forwarded(_ text: String) throws -> String {
        String(decoding: try requestHead(text).forwarded(), as: UTF8.self)
    }

    @Test func keepsOrderAndRemovesHopByHopFields() throws {
        let text = """
            POST http://example.com/a HTTP/1.1\r
            X-First:  1 \r
            hOST: EXAMPLE.com\r
            Proxy-Connection: keep-alive\r
            Proxy-Authorization: Basic c2VjcmV0\r
            Connection: keep-alive, X-Hop\r
            X-Hop: y\r
            Keep-Alive: timeout=5\r
            TE: trailers\r
            Trailer: X\r
            Upgrade: h2c\r
            HTTP2-Settings: AAMAAABk\r
            Transfer-Encoding: CHUNKED\r
            X-First: 2\r
            \r\n
            """
        #expect(
            try forwarded(text) == """
                POST /a HTTP/1.1\r
                X-First: 1\r
                hOST: example.com\r
                Transfer-Encoding: chunked\r
                X-First: 2\r
                \r\n
                """
        )
    }

    @Test func oldVersionStays() throws {
        #expect(
            try forwarded("GET / HTTP/1.0\r\nHost: a:8080\r\nConnection: keep-alive\r\n\r\n")
                == "GET / HTTP/1.0\r\nHost: a:8080\r\nConnection: close\r\n\r\n"
        )
    }

    @Test func closingIsPassedOn() throws {
        #expect(
            try forwarded("GET / HTTP/1.1\r\nConnection: close\r\nHost: a\r\n\r\n")
                == "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        )
    }

    @Test func webSocketHandshakeIsPassedOn() throws {
        let fields = "Host: a\r\nUpgrade: WebSocket\r\nConnection: keep-alive, Upgrade\r\nSec-WebSocket-Key: k\r\n"
        #expect(
            try forwarded("GET /c HTTP/1.1\r\n\(fields)\r\n")
                == "GET /c HTTP/1.1\r\nHost: a\r\nSec-WebSocket-Key: k\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        )
    }

    @Test func hostOfConnectIsWritten() throws {
        #expect(try forwarded("CONNECT A:443 HTTP/1.1\r\n\r\n") == "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n")
    }
}
