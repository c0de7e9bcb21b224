import NetPrimitives
import Testing
import WireFormat

@Suite struct HTTPAuthorityTests {
    @Test(arguments: [
        ("Example.COM", "example.com"), ("example.com.:8080", "example.com:8080"), ("192.0.2.1:80", "192.0.2.1:80"),
        ("[2001:DB8::0:1]", "[2001:db8::1]"), ("[::ffff:192.0.2.1]:443", "[::ffff:192.0.2.1]:443"), ("a_b:1", "a_b:1"),
        ("localhost:65535", "localhost:65535"),
    ])
    func canonical(text: String, description: String) throws {
        let authority = try HTTPAuthority(ascii: Array(text.utf8))
        #expect("\(authority)" == description)
        #expect(try HTTPAuthority(ascii: Array(description.utf8)) == authority)
    }

    @Test(arguments: [
        "", ":80", "a:", "a:0", "a:080", "a:b", "a:1:2", "[::1", "::1", "[]", "[a]", "a]", "a@b", "@", "a/b", "a b",
        "\u{e9}",
    ])
    func refused(text: String) {
        #expect(throws: WireError.self) { try HTTPAuthority(ascii: Array(text.utf8)) }
    }

    @Test func offsetsPointIntoTheText() {
        #expect(throws: WireError(offset: 4, problem: "user information before the host")) {
            try HTTPAuthority(ascii: Array("user@example.com".utf8))
        }
    }
}
