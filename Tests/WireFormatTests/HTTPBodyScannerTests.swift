import Testing
import WireFormat

@Suite struct HTTPBodyScannerTests {
    private func bytes(_ text: String) -> [UInt8] { text.unicodeScalars.map { UInt8($0.value) } }

    @Test func noBody() throws {
        for framing in [HTTPFraming.none, .length(0)] {
            var scanner = HTTPBodyScanner(framing)
            #expect(scanner.isComplete && !scanner.endsWithConnection)
            #expect(try scanner.consume(bytes("GET")) == 0)
        }
    }

    @Test func countedBody() throws {
        var scanner = HTTPBodyScanner(.length(5))
        #expect(try scanner.consume(bytes("hel")) == 3)
        #expect(!scanner.isComplete)
        scanner.connectionEnded()
        #expect(!scanner.isComplete)
        #expect(try scanner.consume(bytes("loGET")) == 2)
        #expect(scanner.isComplete)
    }

    @Test func endlessCount() throws {
        var scanner = HTTPBodyScanner(.length(.max))
        #expect(try scanner.consume(bytes("hello")) == 5)
        #expect(!scanner.isComplete)
    }

    @Test func bodyUntilClose() throws {
        var scanner = HTTPBodyScanner(.untilClose)
        #expect(try scanner.consume(bytes("hello")) == 5)
        #expect(!scanner.isComplete && scanner.endsWithConnection)
        scanner.connectionEnded()
        #expect(scanner.isComplete && !scanner.endsWithConnection)
    }

    @Test(arguments: [
        "0\r\n\r\n", "5\r\nhello\r\n0\r\n\r\n", "00A\r\n0\r\n\r\n0\r\n\r\n\r\n000\r\n\r\n",
        "a\r\n0123456789\r\n1\r\nx\r\n0\r\nX-Sum: 1\r\nY:\r\n\r\n",
    ])
    func everySplitOfChunks(text: String) throws {
        let body = bytes(text)
        let rest = bytes("GET / HTTP/1.1\r\n")
        for cut in 0...body.count {
            var scanner = HTTPBodyScanner(.chunked)
            #expect(try scanner.consume(Array(body.prefix(cut))) == cut)
            #expect(scanner.isComplete == (cut == body.count))
            #expect(try scanner.consume(Array(body.dropFirst(cut)) + rest) == body.count - cut)
            #expect(scanner.isComplete)
        }
        var scanner = HTTPBodyScanner(.chunked)
        for byte in body {
            #expect(!scanner.isComplete)
            #expect(try scanner.consume([byte]) == 1)
        }
        #expect(scanner.isComplete)
        #expect(try scanner.consume(rest) == 0)
    }

    @Test(arguments: [
        "\r\n", "5;a=b\r\n", "5 \r\n", " 5\r\n", "5\t\r\n", "0x5\r\n", "+5\r\n", "-5\r\n", "g\r\n", "5\n", "5\r5",
        "5\r\r\n", "5\r\nhello\n",
        "5\r\nhello!\r\n", "5\r\nhello\rX", "5\r\nhello0\r\n", "1000000000000000\r\n", "0000000000000005\r\n",
        "0;x\r\n\r\n", "0\n\n",
        "0\r\n\n", "0\r\nX: y\n", "0\r\nX : y\r\n", "0\r\n X: y\r\n", "0\r\nX: y\r\n z\r\n", "0\r\nX\r\n",
        "0\r\nX: \0\r\n", "0\r\n\r0",
        "0\r\nX: y\rz\r\n", "0\r\nContent-Length: 5\r\n", "0\r\nTRANSFER-ENCODING: chunked\r\n",
        "0\r\nHost: evil.test\r\n",
        "0\r\nConnection: close\r\n", "0\r\nGET / HTTP/1.1\r\n", "\u{ff}",
    ])
    func brokenChunks(text: String) {
        let body = bytes(text)
        let failure = failure(of: [body])
        #expect(failure != nil)
        for cut in 0..<body.count {
            #expect(self.failure(of: [Array(body.prefix(cut)), Array(body.dropFirst(cut))]) == failure)
        }
    }

    private func failure(of pieces: [[UInt8]]) -> WireError? {
        var scanner = HTTPBodyScanner(.chunked)
        do throws(WireError) {
            for piece in pieces { _ = try scanner.consume(piece) }
            return nil
        } catch {
            return error
        }
    }

    @Test func boundedTrailers() {
        var scanner = HTTPBodyScanner(.chunked)
        #expect(throws: WireError.self) {
            _ = try scanner.consume(bytes("0\r\n" + String(repeating: "A: b\r\n", count: 1_400)))
        }
        var one = HTTPBodyScanner(.chunked)
        #expect(throws: WireError.self) {
            _ = try one.consume(bytes("0\r\nA: " + String(repeating: "b", count: 9_000)))
        }
    }
}
