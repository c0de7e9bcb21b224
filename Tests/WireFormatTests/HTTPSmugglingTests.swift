import NetPrimitives
import Testing
import WireFormat

/// Requests that two servers may read in two ways: none may pass.
@Suite struct HTTPSmugglingTests {
    @Test(arguments: [
        "GET / HTTP/1.1\nHost: example.com\r\n\r\n", "GET / HTTP/1.1\n\n", "GET  / HTTP/1.1\r\n", "GET / HTTP/1.1 \r\n",
        " GET / HTTP/1.1\r\n", "\tGET / HTTP/1.1\r\n", "\r\nGET / HTTP/1.1\r\n", "\n\n\nGET / HTTP/1.1\r\n",
        "\rGET / HTTP/1.1\r\n",
        "GET\t/ HTTP/1.1\r\n", "GET /\tHTTP/1.1\r\n", "GET / a HTTP/1.1\r\n", "GET / http/1.1\r\n",
        "GET / HTTP/1.2\r\n",
        "GET / HTTP/2.0\r\n", "GET / HTTP/0.9\r\n", "GET / HTTP/1.1.1\r\n", "GET / HTTP/1.10\r\n", "GET / HTTP/11\r\n",
        "GET HTTP/1.1\r\n", "HTTP/1.1 200 OK\r\n", "GET / HTTP/1.1\r\r\n", "GET /\r HTTP/1.1\r\n",
        "GET / HTTP/1.1\rHost: a\r\n",
        "GET / XHTTP/1.1\r\n", "GET /\u{7f} HTTP/1.1\r\n", "GET /\u{ff} HTTP/1.1\r\n", "FOO /\u{ff} HTTP/1.1\r\n",
        "GET /\u{1} HTTP/1.1\r\n", "GET /\0 HTTP/1.1\r\n", "GET /\0", "GET /a#b HTTP/1.1\r\n", "GET /x\r\n",
        "GET / JUNK/1.1\r\n",
        "get http://example.com/ x\r\n", "GET https://example.com/\r\n",
        // Found by comparison: nginx serves them as HTTP/0.9, by the host that they name.
        "GET ftp://example.com/\r\n", "GET ftp://example.com/ \r\n", "GET x+y-.1://example.com/\u{a0}HTP/1.1\r\n",
        "\(String(repeating: "A", count: 65)) / HTTP/1.1\r\n",
    ])
    func requestLines(line: String) {
        let outcome = parseRequest(line.contains("\0") ? line : line + "Host: example.com\r\n\r\n")
        // A first word that is no token is no method to any server.
        if line.hasPrefix("HTTP/") {
            #expect(outcome == .notHTTP)
        } else {
            #expect(isMalformed(outcome))
        }
    }

    @Test(arguments: [
        "GET http://user@example.com/", "GET http://example.com@evil.test/", "GET http://example.com\\@evil.test/",
        "GET https://example.com/", "GET ftp://example.com/", "GET http:///", "GET http://", "GET http:/example.com/",
        "GET example.com/", "GET example.com:80", "GET *", "OPTIONS example.com:80", "GET http://evil.test/",
        "GET http://example.com:81/", "GET http://example.com:/", "GET http://[::1%25eth0]/",
        "POST http://evil.test?example.com",
        "CONNECT example.com", "CONNECT example.com:", "CONNECT example.com:0", "CONNECT example.com:65536",
        "CONNECT example.com:443/", "CONNECT http://example.com:443", "CONNECT /", "CONNECT *", "CONNECT evil.test:80",
        "CONNECT example.com:0443", "CONNECT user@example.com:443",
    ])
    func targets(start: String) {
        #expect(isMalformed(parseRequest("\(start) HTTP/1.1\r\nHost: example.com\r\n\r\n")))
    }

    @Test(arguments: [
        "", "Host:\r\n", "Host: \r\n", "Host: example.com\r\nHost: example.com\r\n",
        "Host: example.com\r\nhost: evil.test\r\n",
        "Host: example.com, evil.test\r\n", "Host: user@example.com\r\n", "Host: example.com:\r\n",
        "Host: example.com:80:80\r\n",
        "Host: example.com:0\r\n", "Host: example.com:99999\r\n", "Host: example.com:+80\r\n",
        "Host: example.com:8 0\r\n",
        "Host: 127.1\r\n", "Host: 0x7f.0.0.1\r\n", "Host: 2130706433\r\n", "Host: 0177.0.0.1\r\n",
        "Host: 192.0.2.01\r\n",
        "Host: 192.0.2.1.\r\n", "Host: 1.2.3\r\n", "Host: [2001:db8::1\r\n", "Host: 2001:db8::1\r\n",
        "Host: [fe80::1%eth0]\r\n",
        "Host: [fe80::1%25eth0]\r\n", "Host: [192.0.2.1]\r\n", "Host: [example.com]\r\n", "Host: [2001:db8::1]80\r\n",
        "Host: example.com..\r\n", "Host: .example.com\r\n", "Host: a..b\r\n", "Host: example.com/\r\n",
        "Host: exa mple.com\r\n",
        "Host: http://example.com\r\n", "Host: b\u{fc}cher.example\r\n", "Host: example.com\u{0}\r\n",
        "Host: *.example.com\r\n",
        "Host : example.com\r\n", " Host: example.com\r\n", "X: y\r\n Host: example.com\r\n", "Host\r\n",
        "Host\0: example.com\r\n",
        "Host: example.com\r\nX: y\r\n z\r\n", "Host: example.com\r\nX: y\r\n\tz\r\n", "Host: example.com\nX: y\r\n",
        "Host: example.com\rX: y\r\n", "Host: example.com\r\nX: a\u{b}\r\n", "Host: example.com\r\nX: a\0b\r\n",
        "Host: example.com\r\n: y\r\n", "Host: example.com\r\nX y: z\r\n", "Host: example.com\r\nX\r\n",
        "Host: example.com\n\r\n",
        "Host: example.com\r\nX\u{e9}: z\r\n",
    ])
    func hostsAndFields(fields: String) {
        #expect(isMalformed(parseRequest("GET / HTTP/1.1\r\n\(fields)\r\n")))
        #expect(isMalformed(parseRequest("GET / HTTP/1.0\r\n\(fields)\r\n")))
    }

    @Test(arguments: [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\nContent-Length: 5\r\n", "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: 5, 5\r\n",
        "Content-Length: +5\r\n", "Content-Length: -5\r\n", "Content-Length: 0x5\r\n", "Content-Length: 5 5\r\n",
        "Content-Length: 05\r\n", "Content-Length:\r\n", "Content-Length: 5a\r\n", "Content-Length: 5;\r\n",
        "Content-Length: 18446744073709551616\r\n", "Content-Length: 1e3\r\n", "Content-Length : 5\r\n",
        "Content-Length\t: 5\r\n",
        "Transfer-Encoding: identity\r\n", "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: chunked, chunked\r\n",
        "Transfer-Encoding: chunked, identity\r\n", "Transfer-Encoding: xchunked\r\n", "Transfer-Encoding:\r\n",
        "Transfer-Encoding: \"chunked\"\r\n", "Transfer-Encoding: chunked;q=1\r\n", "Transfer-Encoding: ,chunked\r\n",
        "Transfer-Encoding:\u{b}chunked\r\n", "Transfer-Encoding : chunked\r\n", "Transfer-Encoding\r\n : chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n",
        "X: y\rTransfer-Encoding: chunked\r\n", "X: y\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chu\r\n nked\r\n",
        "Connection: Host\r\n", "Connection: close, content-length\r\n", "Connection: TRANSFER-ENCODING\r\n",
        "Connection: a b\r\n", "Connection: x;y\r\n", "Expect: 200-ok\r\n", "Expect: 100-continue, x\r\n",
        "Expect:\r\n",
        "Expect: 100-continue\r\nExpect: 100-continue\r\n",
    ])
    func framingAndOptions(fields: String) {
        #expect(isMalformed(parseRequest("POST / HTTP/1.1\r\nHost: example.com\r\n\(fields)\r\n")))
        #expect(isMalformed(parseRequest("POST / HTTP/1.1\r\n\(fields)Host: example.com\r\n\r\n")))
    }

    @Test func transferEncodingOnOldVersion() {
        #expect(isMalformed(parseRequest("POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")))
    }

    @Test func bodyOfConnectShows() throws {
        #expect(try requestHead("CONNECT a:443 HTTP/1.1\r\nContent-Length: 5\r\n\r\n").framing == .length(5))
        #expect(try requestHead("CONNECT a:443 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n").framing == .chunked)
    }

    @Test func floods() {
        let start = "GET / HTTP/1.1\r\nHost: example.com\r\n"
        #expect(isMalformed(parseRequest(start + String(repeating: "A: b\r\n", count: 100) + "\r\n")))
        #expect(isMalformed(parseRequest(start + "A: " + String(repeating: "b", count: 33_000))))
        #expect(isMalformed(parseRequest(start + "A: " + String(repeating: "b", count: 33_000) + "\r\n\r\n")))
    }

    /// What breaks the format is known when its line is complete, not when the head is.
    @Test func knownEarly() {
        #expect(isMalformed(parseRequest("GET / HTTP/1.1\n")))
        #expect(isMalformed(parseRequest("GET / HTTP/1.1\r\nHost : a\r\n")))
        #expect(isMalformed(parseRequest("GET / HTTP/1.1\r\nHost: a\n")))
    }
}
