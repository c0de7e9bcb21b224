import Testing
import WireFormat

/// Throws tens of thousands of slightly broken inputs at each parser. None may trap, and the outcome must depend on the
/// bytes alone, not on how they were divided.
@Suite struct ParserMutationTests {
    @Test(arguments: 0..<8 as Range<UInt64>)
    func clientHello(seed: UInt64) throws {
        var generator = SeededGenerator(seed: seed)
        var rich = HelloBuilder(serverName: "www.example.com")
        rich.add(16, HelloBuilder.protocols(["h2", "http/1.1"]))
        rich.add(0xfe0d, [0, 0, 1, 0, 1, 9, 0, 0, 0, 0])
        let seeds = [
            rich.records(), rich.records(of: 40), rich.records(of: 1), HelloBuilder(serverName: nil).records(),
        ]
        let spice: [[UInt8]] = [[22, 3, 1, 0, 1], [0, 0], [0xff, 0xff], [0, 0, 0, 0]]
        var hellos = 0
        for _ in 0..<4_000 {
            let bytes = generator.mutate(seeds.randomElement(using: &generator)!, spice: spice)
            var whole = ClientHelloParser()
            let expected = whole.parse(bytes)
            var parser = ClientHelloParser()
            for prefix in generator.prefixes(of: bytes) {
                let outcome = parser.parse(prefix)
                if case .needMore(let count) = outcome {
                    #expect(count > prefix.count)
                    if prefix.count < bytes.count { continue }
                }
                guard outcome == expected else {
                    Issue.record("\(bytes) after \(prefix.count) bytes: \(outcome), in one go: \(expected)")
                    return
                }
                break
            }
            if case .hello(let hello) = expected {
                hellos += 1
                #expect(hello.length <= bytes.count)
            }
        }
        #expect(hellos > 10)
    }

    private static let requests = [
        "GET /a?b HTTP/1.1\r\nHost: example.com:8080\r\nAccept: */*\r\nConnection: keep-alive, X\r\nX: y\r\n\r\n",
        "POST http://example.com/ HTTP/1.1\r\nHost: example.com\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n",
        "PUT / HTTP/1.0\r\nHost: [2001:db8::1]\r\nContent-Length: 12\r\n\r\n",
        "CONNECT example.com:443 HTTP/1.1\r\nHost: example.com\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nHost: 192.0.2.1\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "EHLO example.com\r\n",
        "GET /c HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: k\r\n\r\n",
    ].map { Array($0.utf8) }

    private static let spice = [
        "\r\n", "\r", "\n", " ", "\t", ":", ": ", ",", ";", "0", "5\r\n", "@", "[", "]", "://", "HTTP/1.1",
        "Host: evil.test\r\n",
        "Content-Length: 1\r\n", "Transfer-Encoding: chunked\r\n", "Connection: close\r\n", "\r\n\r\n", "chunked",
        "GET / ", "\0", ".",
    ].map { Array($0.utf8) }

    @Test(arguments: 0..<8 as Range<UInt64>)
    func requestHead(seed: UInt64) throws {
        var generator = SeededGenerator(seed: 100 + seed)
        var heads = 0
        for _ in 0..<4_000 {
            let bytes = generator.mutate(Self.requests.randomElement(using: &generator)!, spice: Self.spice)
            var whole = HTTPRequestHeadParser()
            let expected = whole.parse(bytes)
            var parser = HTTPRequestHeadParser()
            for prefix in generator.prefixes(of: bytes) {
                let outcome = parser.parse(prefix)
                if case .needMore(let count) = outcome {
                    #expect(count > prefix.count)
                    if prefix.count < bytes.count { continue }
                }
                guard outcome == expected else {
                    Issue.record("\(String(decoding: bytes, as: UTF8.self).debugDescription): \(outcome), \(expected)")
                    return
                }
                break
            }
            guard case .head(let head) = expected else { continue }
            heads += 1
            try checkForwarded(head)
        }
        #expect(heads > 100)
    }

    /// What is sent says the same as what was judged, and writing it anew changes nothing more.
    private func checkForwarded(_ head: HTTPRequestHead) throws {
        let bytes = head.forwarded()
        var parser = HTTPRequestHeadParser()
        guard case .head(let again) = parser.parse(bytes) else {
            Issue.record("forwarded: \(String(decoding: bytes, as: UTF8.self).debugDescription)")
            return
        }
        #expect(again.length == bytes.count)
        #expect(again.method == head.method && again.host == head.host && again.framing == head.framing)
        #expect(again.isPersistent == head.isPersistent || head.asksForWebSocket)
        #expect(again.asksForWebSocket == head.asksForWebSocket)
        #expect(again.forwarded() == bytes)
    }

    @Test(arguments: 0..<4 as Range<UInt64>)
    func responseHead(seed: UInt64) {
        var generator = SeededGenerator(seed: 200 + seed)
        let seeds = [
            "HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\nServer: x\r\n y\r\n\r\n",
            "HTTP/1.0 404\nConnection: keep-alive\n\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        ].map { Array($0.utf8) }
        for _ in 0..<4_000 {
            let bytes = generator.mutate(seeds.randomElement(using: &generator)!, spice: Self.spice)
            let expected = HTTPResponseHead.parse(bytes, requestMethod: "GET")
            if case .head(let head) = expected { #expect(head.length <= bytes.count) }
            for prefix in generator.prefixes(of: bytes) {
                let outcome = HTTPResponseHead.parse(prefix, requestMethod: "GET")
                if case .needMore(let count) = outcome {
                    #expect(count > prefix.count)
                } else {
                    #expect(outcome == expected)
                }
            }
        }
    }

    @Test(arguments: 0..<4 as Range<UInt64>)
    func chunkedBody(seed: UInt64) {
        var generator = SeededGenerator(seed: 300 + seed)
        let seeds = [
            "5\r\nhello\r\n10\r\n0123456789abcdef\r\n0\r\nX: y\r\n\r\nGET /", "0\r\n\r\n", "1\r\na\r\n0\r\n\r\n",
        ].map { Array($0.utf8) }
        for _ in 0..<4_000 {
            let bytes = generator.mutate(seeds.randomElement(using: &generator)!, spice: Self.spice)
            let pieces = generator.prefixes(of: bytes).map(\.count)
            let whole = scan([bytes])
            let divided = scan(zip([0] + pieces, pieces).map { Array(bytes[$0..<$1]) })
            #expect(whole == divided)
        }
    }

    /// How many bytes the body has, whether it is complete, and the error.
    private func scan(_ pieces: [[UInt8]]) -> [String] {
        var scanner = HTTPBodyScanner(.chunked)
        var count = 0
        do {
            for piece in pieces { count += try scanner.consume(piece) }
        } catch {
            return ["\(error)"]
        }
        return ["\(count)", "\(scanner.isComplete)"]
    }

    /// Bytes without any sense.
    @Test func noise() {
        var generator = SeededGenerator(seed: 400)
        for _ in 0..<10_000 {
            let count = Int.random(in: 0...200, using: &generator)
            let bytes = (0..<count).map { _ in UInt8.random(in: 0...255, using: &generator) }
            var hello = ClientHelloParser()
            _ = hello.parse(bytes)
            // Callers promise ever longer prefixes; one that breaks the promise must not be able to trap either.
            _ = hello.parse([22, 3, 1] + bytes)
            var request = HTTPRequestHeadParser()
            _ = request.parse(bytes)
            _ = request.parse(Array("GET / HTTP/1.1\r\n".utf8) + bytes)
            _ = request.parse(Array(bytes.prefix(3)))
            _ = HTTPResponseHead.parse(Array("HTTP/1.1 ".utf8) + bytes, requestMethod: "GET")
            var scanner = HTTPBodyScanner(.chunked)
            _ = try? scanner.consume(bytes)
        }
    }
}
