import NetPrimitives
import Testing
import WireFormat

/// Parses `text` in one go. Every character is one byte.
func parseRequest(_ text: String) -> HTTPRequestHeadParser.Outcome {
    var parser = HTTPRequestHeadParser()
    return parser.parse(text.unicodeScalars.map { UInt8($0.value) })
}

func requestHead(_ text: String) throws -> HTTPRequestHead {
    guard case .head(let head) = parseRequest(text) else {
        Issue.record("no head: \(parseRequest(text)) of \(text.debugDescription)")
        throw WireError(offset: 0, problem: "no head")
    }
    return head
}

func isMalformed(_ outcome: HTTPRequestHeadParser.Outcome) -> Bool {
    if case .malformed = outcome { true } else { false }
}

private func name(_ text: String, port: UInt16? = nil) throws -> HTTPAuthority {
    HTTPAuthority(.name(try DomainName(text)), port: port)
}

@Suite struct HTTPRequestHeadParserTests {
    @Test func originForm() throws {
        let text = "GET /a?b=c%20d HTTP/1.1\r\nHost: Example.COM:8080\r\nAccept: */*\r\n\r\n"
        let head = try requestHead(text + "rest")
        #expect(head.method == "GET")
        #expect(head.target == .origin(Array("/a?b=c%20d".utf8)))
        #expect(head.host == (try name("example.com", port: 8080)))
        #expect(head.framing == .none)
        #expect(head.length == text.utf8.count)
        #expect(head.isPersistent)
        #expect(!head.asksForWebSocket)
    }

    @Test(arguments: [
        ("http://example.com/x?y", "/x?y"), ("HTTP://EXAMPLE.com", "/"), ("http://example.com:80?q", "/?q"),
        ("http://example.com./", "/"),
    ])
    func absoluteForm(target: String, path: String) throws {
        let head = try requestHead("GET \(target) HTTP/1.1\r\nHost: example.com\r\n\r\n")
        guard case .absolute(let authority, let pathAndQuery) = head.target else {
            Issue.record("not absolute")
            return
        }
        #expect(authority.host == .name(try DomainName("example.com")))
        #expect(pathAndQuery == Array(path.utf8))
        #expect(
            String(decoding: head.forwarded(), as: UTF8.self).hasPrefix("GET \(path) HTTP/1.1\r\nHost: example.com\r\n")
        )
    }

    @Test func connect() throws {
        let bare = try requestHead("CONNECT example.com:443 HTTP/1.1\r\n\r\n")
        #expect(bare.target == .authority(try name("example.com", port: 443)))
        #expect(bare.host == (try name("example.com", port: 443)))
        #expect(bare.framing == .none)
        for host in ["example.com:443", "Example.com", "example.com."] {
            #expect(try requestHead("CONNECT example.com:443 HTTP/1.1\r\nHost: \(host)\r\n\r\n").host == bare.host)
        }
        let address = try requestHead("CONNECT [2001:db8::1]:443 HTTP/1.0\r\nContent-Length: 0\r\n\r\n")
        #expect(address.host == HTTPAuthority(.address(try #require(IPAddress("2001:db8::1"))), port: 443))
        #expect(address.framing == .none)
    }

    @Test func options() throws {
        #expect(try requestHead("OPTIONS * HTTP/1.1\r\nHost: example.com\r\n\r\n").target == .asterisk)
        let absolute = try requestHead("OPTIONS http://example.com HTTP/1.1\r\nHost: example.com\r\n\r\n")
        #expect(String(decoding: absolute.forwarded(), as: UTF8.self).hasPrefix("OPTIONS * HTTP/1.1\r\n"))
    }

    @Test(arguments: [
        ("", HTTPFraming.none), ("Content-Length: 0\r\n", .length(0)), ("content-length:\t42 \r\n", .length(42)),
        ("Content-Length: 999999999999999999\r\n", .length(999_999_999_999_999_999)),
        ("Transfer-Encoding: chunked\r\n", .chunked), ("TRANSFER-ENCODING: Chunked\r\n", .chunked),
    ])
    func framing(fields: String, expected: HTTPFraming) throws {
        #expect(try requestHead("POST / HTTP/1.1\r\nHost: example.com\r\n\(fields)\r\n").framing == expected)
    }

    @Test(arguments: [
        ("HTTP/1.1", "", true), ("HTTP/1.1", "Connection: close\r\n", false),
        ("HTTP/1.1", "Connection: x, CLOSE\r\n", false), ("HTTP/1.1", "Connection: x\r\nConnection: close\r\n", false),
        ("HTTP/1.1", "Connection: keep-alive\r\n", true), ("HTTP/1.0", "", false),
        ("HTTP/1.0", "Connection: keep-alive\r\n", false),
    ])
    func persistence(version: String, fields: String, expected: Bool) throws {
        #expect(try requestHead("GET / \(version)\r\nHost: example.com\r\n\(fields)\r\n").isPersistent == expected)
    }

    @Test func webSocket() throws {
        let fields =
            "Host: example.com\r\nUpgrade: WebSocket\r\nConnection: keep-alive, Upgrade\r\nSec-WebSocket-Key: x\r\n"
        #expect(try requestHead("GET /chat HTTP/1.1\r\n\(fields)\r\n").asksForWebSocket)
        for text in [
            "POST /chat HTTP/1.1\r\n\(fields)\r\n", "GET /chat HTTP/1.0\r\n\(fields)\r\n",
            "GET /chat HTTP/1.1\r\n\(fields)Content-Length: 1\r\n\r\n",
            "GET /chat HTTP/1.1\r\n\(fields)Upgrade: h2c\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: example.com\r\nUpgrade: h2c\r\nConnection: Upgrade\r\nSec-WebSocket-Key: x\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: example.com\r\nUpgrade: websocket, h2c\r\nConnection: Upgrade\r\nSec-WebSocket-Key: x\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: example.com\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n",
        ] {
            #expect(try !requestHead(text).asksForWebSocket, "\(text)")
        }
    }

    @Test func untidyButClear() throws {
        _ = try requestHead(
            "GET / HTTP/1.1\r\nHost:example.com\r\nX:\r\nUser-Agent: caf\u{e9}\t(x)\r\nExpect: 100-Continue\r\n\r\n"
        )
        _ = try requestHead(
            "GET / HTTP/1.1\r\nHost: example.com\r\n" + String(repeating: "A: b\r\n", count: 99) + "\r\n"
        )
        _ = try requestHead("PROPFIND //a//b;c=|{}\\ HTTP/1.1\r\nHost: 192.0.2.1:1\r\n\r\n")
    }
}

// MARK: - Splits

@Suite struct HTTPRequestSplitTests {
    private static let texts = [
        "GET /a HTTP/1.1\r\nHost: example.com\r\nAccept: */*\r\n\r\n",
        "POST / HTTP/1.0\r\nHost: a\r\nContent-Length: 3\r\n\r\n",
        "CONNECT example.com:443 HTTP/1.1\r\n\r\n",
    ]

    @Test(arguments: texts)
    func everySplit(text: String) throws {
        let bytes = Array(text.utf8)
        #expect(try requestHead(text).length == bytes.count)
        var slow = HTTPRequestHeadParser()
        for cut in 0..<bytes.count {
            var parser = HTTPRequestHeadParser()
            let prefix = Array(bytes.prefix(cut))
            guard case .needMore(let count) = parser.parse(prefix) else {
                Issue.record("decided after \(cut) bytes")
                continue
            }
            #expect(count > cut && count <= bytes.count)
            #expect(parser.parse(bytes) == parseRequest(text))
            #expect(slow.parse(prefix) == .needMore(count))
        }
        #expect(slow.parse(bytes) == parseRequest(text))
    }
}

// MARK: - What is not HTTP

@Suite struct NotHTTPTests {
    @Test(arguments: [
        "SSH-2.0-OpenSSH_9.6p1 Debian-1\r\n", "EHLO host\r\n", "USER x\r\n", "*1\r\n$4\r\nPING\r\n", "\r\n\r\nhelp\r\n",
        "AMQP\0\0\u{9}\u{1}", "\u{16}\u{3}\u{1}", "{\"jsonrpc\":", "<?xml version", "get /key\r\n",
        "OPTIONS rtsp://x RTSP/1.0\r\n",
        "INVITE sip:bob@example.com SIP/2.0\r\n", "0033git-upload-pack /project.git\0host=example.com\0",
        "CONNECT {}\r\n",
        "@RSYNCD: 31.0\n", "\u{ff}\u{fb}\u{1f}", "\n", "A\u{80}", "x\n",
    ])
    func otherProtocols(text: String) {
        var outcome = parseRequest(text)
        if text == "\n" {
            #expect(outcome == .needMore(2))
            outcome = parseRequest("\nx\n")
        }
        #expect(outcome == .notHTTP)
    }

    @Test func mayStillBecomeHTTP() {
        for text in [
            "G", "GET", "GET ", "GET /", "GET / HTTP/1.1", "GET / HTTP/1.1\r", "P", "PRI * HTTP/2.0\r\n", "\r\n",
            "SSH-2.0",
        ] {
            guard case .needMore(let count) = parseRequest(text) else {
                Issue.record("\(text.debugDescription) is decided")
                continue
            }
            #expect(count > text.utf8.count)
        }
        var parser = HTTPRequestHeadParser()
        #expect(parser.parse([]) == .needMore(1))
    }

    @Test func prefaceOfHTTP2() {
        #expect(parseRequest("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n") == .http2Preface)
        #expect(parseRequest("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\u{4}") == .http2Preface)
        #expect(isMalformed(parseRequest("PRI * HTTP/2.0\r\n\r\nSX")))
        #expect(isMalformed(parseRequest("PRI * HTTP/2.0\r\nHost: x\r\n\r\n")))
    }

    @Test func longFirstLines() {
        let long = String(repeating: "a", count: 17_000)
        #expect(parseRequest(long) == .notHTTP)
        #expect(isMalformed(parseRequest("GET /\(long)")))
        #expect(isMalformed(parseRequest("GET /\(long) HTTP/1.1\r\nHost: a\r\n\r\n")))
        #expect(parseRequest(String(repeating: "\r\n", count: 9_000) + "GET / HTTP/1.1\r\n") == .notHTTP)
    }
}
