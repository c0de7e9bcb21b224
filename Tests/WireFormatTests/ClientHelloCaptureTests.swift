import NetPrimitives
import Testing
import WireFormat

/// Hellos as real programs sent them.
@Suite struct ClientHelloCaptureTests {
    @Test func opensslClient() throws {
        // openssl s_client -servername Example.COM -alpn h2,http/1.1 (OpenSSL 3.0)
        let hello = try parse(
            """
            160301014a01000146030312995ae17da7515451942c15342cd97cb73d9a5279a849719c42e483409ea53120be6ee4f584
            0225c7bed52709aa479c31f7beb4c3f32bed9efd3c350e596efcc9003e130213031301c02cc030009fcca9cca8ccaac02b
            c02f009ec024c028006bc023c0270067c00ac0140039c009c0130033009d009c003d003c0035002f00ff010000bf000000
            10000e00000b4578616d706c652e434f4d000b000403000102000a00160014001d0017001e001900180100010101020103
            0104002300000010000e000c02683208687474702f312e310016000000170000000d002a00280403050306030807080808
            09080a080b080408050806040105010601030303010302040205020602002b0009080304030303020301002d0002010100
            3300260024001d0020cfebc6e6b6ee2fb2eafa11126e32c1c44ef44e4dde6ed6a02f4b261b0eaf2e0b
            """
        )
        #expect(hello.serverName == .name(try DomainName("example.com")))
        #expect(hello.alpn == [Array("h2".utf8), Array("http/1.1".utf8)])
        #expect(hello.length == 335)
    }

    @Test func opensslClientOfTLS12WithoutName() throws {
        // openssl s_client -tls1_2 -noservername (OpenSSL 3.0)
        let hello = try parse(
            """
            16030100b7010000b303037d6b13f7e5dff60ab60a0613991676f22b0f299b57e50a5c0347d2dfee447b19000038c02cc0
            30009fcca9cca8ccaac02bc02f009ec024c028006bc023c0270067c00ac0140039c009c0130033009d009c003d003c0035
            002f00ff01000052000b000403000102000a000c000a001d0017001e00190018002300000016000000170000000d002a00
            28040305030603080708080809080a080b080408050806040105010601030303010302040205020602
            """
        )
        #expect(hello.serverName == .absent)
        #expect(hello.alpn.isEmpty)
        #expect(hello.length == 188)
    }

    private func parse(_ text: String) throws -> ClientHello {
        let bytes = [UInt8](hexadecimal: text)
        var parser = ClientHelloParser()
        for end in 0..<bytes.count {
            guard case .needMore(let count) = parser.parse(Array(bytes.prefix(end))) else {
                throw WireError(offset: end, problem: "decided early")
            }
            #expect(count <= bytes.count)
        }
        guard case .hello(let hello) = parser.parse(bytes) else { throw WireError(offset: 0, problem: "no hello") }
        return hello
    }
}
