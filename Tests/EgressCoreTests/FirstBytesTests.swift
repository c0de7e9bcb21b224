import EgressCore
import Testing
import WireFormat

@Suite struct FirstBytesTests {
    /// What the bytes turn out to be, in a word.
    private func sighting(_ bytes: [UInt8]) -> String {
        var firstBytes = FirstBytes()
        return describe(firstBytes.examine(bytes))
    }

    private func describe(_ sighting: FirstBytes.Sighting) -> String {
        switch sighting {
        case .needMore(let count): "more: \(count)"
        case .clientHello(let hello): "hello of \(hello.length)"
        case .httpRequest(let head): "request of \(head.length)"
        case .opaque: "opaque"
        case .malformedHello: "malformed hello"
        case .malformedHTTP: "malformed HTTP"
        }
    }

    private func sighting(_ text: String) -> String { sighting(Array(text.utf8)) }

    /// The least that is a ClientHello.
    private let hello: [UInt8] =
        [22, 3, 1, 0, 45, 1, 0, 0, 41, 3, 3] + [UInt8](repeating: 0, count: 32) + [0, 0, 2, 0x13, 1, 1, 0]

    @Test func tellsProtocolsApart() {
        #expect(sighting([]) == "more: 1")
        #expect(sighting(hello) == "hello of 50")
        #expect(sighting("GET / HTTP/1.1\r\nHost: a\r\n\r\nx") == "request of 27")
        #expect(sighting("SSH-2.0-x\r\n") == "opaque")
        #expect(sighting("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n") == "opaque")
        #expect(sighting([0, 0, 0, 8, 4, 0xd2, 0x16, 0x2f]) == "opaque")
    }

    /// What begins as TLS or HTTP never becomes opaque by breaking its format.
    @Test func brokenIsNotOpaque() {
        #expect(sighting([22, 3, 1, 0, 0]) == "malformed hello")
        #expect(sighting([22, 9]) == "malformed hello")
        #expect(sighting([0x80, 0x2e, 1]) == "malformed hello")
        #expect(sighting("GET / HTTP/1.1\nHost: a\r\n\r\n") == "malformed HTTP")
        #expect(sighting("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n") == "malformed HTTP")
        #expect(sighting("GET / HTTP/1.1\r\n\r\n") == "malformed HTTP")
    }

    @Test func waitsWhileUndecided() {
        for cut in 1..<hello.count { #expect(sighting(Array(hello.prefix(cut))).hasPrefix("more")) }
        #expect(sighting("GE") == "more: 3")
        #expect(sighting([0x80]) == "more: 3")
    }

    @Test func everySplit() {
        for bytes in [hello, Array("GET / HTTP/1.1\r\nHost: a\r\n\r\n".utf8), Array("EHLO a\r\n".utf8)] {
            var slow = FirstBytes()
            for cut in 0..<bytes.count {
                var firstBytes = FirstBytes()
                let prefix = Array(bytes.prefix(cut))
                #expect(describe(firstBytes.examine(prefix)).hasPrefix("more"))
                #expect(describe(firstBytes.examine(bytes)) == sighting(bytes))
                _ = slow.examine(prefix)
            }
            #expect(describe(slow.examine(bytes)) == sighting(bytes))
        }
    }
}
