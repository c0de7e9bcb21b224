import Testing
import WireFormat

private func parse(_ text: String, method: String = "GET") -> HTTPResponseHead.Outcome {
    HTTPResponseHead.parse(text.unicodeScalars.map { UInt8($0.value) }, requestMethod: method)
}

private func head(_ text: String, method: String = "GET") throws -> HTTPResponseHead {
    guard case .head(let head) = parse(text, method: method) else {
        Issue.record("no head: \(parse(text)) of \(text.debugDescription)")
        throw WireError(offset: 0, problem: "no head")
    }
    return head
}

@Suite struct HTTPResponseHeadTests {
    @Test func reads() throws {
        let text = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nServer: x\r\n\r\n"
        let head = try head(text + "hello")
        #expect(head.status == 200)
        #expect(head.framing == .length(5))
        #expect(head.length == text.utf8.count)
        #expect(head.isPersistent)
    }

    @Test func everySplit() {
        let bytes = Array("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n".utf8)
        for cut in 0..<bytes.count {
            guard case .needMore(let count) = HTTPResponseHead.parse(Array(bytes.prefix(cut)), requestMethod: "GET")
            else {
                Issue.record("decided after \(cut) bytes")
                continue
            }
            #expect(count > cut)
        }
    }

    @Test(arguments: [
        ("HTTP/1.1 200 OK\r\n\r\n", HTTPFraming.untilClose, false),
        ("HTTP/1.0 200 OK\r\n\r\n", .untilClose, false),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", .chunked, true),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, Chunked\r\n\r\n", .chunked, true),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\nContent-Length: 2\r\n\r\n", .length(2), true),
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", .length(0), true),
        ("HTTP/1.1 200 OK\r\nContent-Length: 7, 7\r\nContent-Length: 7\r\n\r\n", .length(7), true),
        ("HTTP/1.1 200 OK\r\nContent-Length: 7\r\nConnection: Close\r\n\r\n", .length(7), false),
        ("HTTP/1.0 200 OK\r\nContent-Length: 7\r\n\r\n", .length(7), false),
        ("HTTP/1.0 200 OK\r\nContent-Length: 7\r\nConnection: keep-alive\r\n\r\n", .length(7), true),
        ("HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n", .none, true),
        ("HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", .none, true),
        ("HTTP/1.1 100 Continue\r\n\r\n", .none, true),
        ("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", .none, true),
    ])
    func framing(text: String, framing: HTTPFraming, isPersistent: Bool) throws {
        let head = try head(text)
        #expect(head.framing == framing)
        #expect(head.isPersistent == isPersistent)
    }

    @Test func answerToHEADHasNoBody() throws {
        #expect(try head("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", method: "HEAD").framing == .none)
        #expect(try head("HTTP/1.1 200 OK\r\n\r\n", method: "HEAD").isPersistent)
        #expect(try head("HTTP/1.1 200 OK\r\n\r\n", method: "CONNECT").framing == .none)
        #expect(try head("HTTP/1.1 403 No\r\nContent-Length: 5\r\n\r\n", method: "CONNECT").framing == .length(5))
    }

    @Test(arguments: [
        "HTTP/1.1 200\r\n\r\n", "HTTP/1.1 200 \r\n\r\n", "HTTP/1.1 200 caf\u{e9}\r\n\r\n",
        "HTTP/1.1 200 OK\nServer: x\n\n",
        "HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n", "HTTP/1.1 599 x\r\nX:\r\n\n",
    ])
    func untidyButClear(text: String) throws {
        #expect(try head(text).framing == .untilClose)
    }

    @Test(arguments: [
        "HTTX", "\r\nHTTP/1.1 200 OK\r\n\r\n", "HTTP/2.0", "HTTP/1.2 200 OK\r\n\r\n", "HTTP/1.1 20 OK\r\n\r\n",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/1.1 099 OK\r\n\r\n", "HTTP/1.1  200 OK\r\n\r\n", "HTTP/1.1 abc OK\r\n\r\n", "HTTP/1.1\r\n\r\n",
        "HTTP/1.1 -10 x\r\n\r\n",
        "HTTP/1.1 200 O\0K\r\n", "HTTP/1.1 200 OK\r\nX: a\rb\r\n\r\n", "HTTP/1.1 200 OK\r\n X: folded\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length : 5\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n 5\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: x,\r\n chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nConnection: x\r\n close\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 5,\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    ])
    func malformed(text: String) {
        guard case .malformed = parse(text) else {
            Issue.record("\(text.debugDescription): \(parse(text))")
            return
        }
    }

    @Test func floods() {
        let start = "HTTP/1.1 200 OK\r\n"
        for text in [
            start + String(repeating: "a: b\r\n", count: 501) + "\r\n",
            start + "a: " + String(repeating: "b", count: 66_000),
        ] {
            guard case .malformed = parse(text) else {
                Issue.record("\(text.utf8.count) bytes pass")
                continue
            }
        }
    }
}
