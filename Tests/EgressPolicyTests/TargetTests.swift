import EgressPolicy
import NetPrimitives
import Testing

@Suite struct TargetTests {
    @Test(arguments: [
        ("example.com", "example.com"),
        ("Example.COM.", "example.com"),
        ("localhost", "localhost"),
        ("_dmarc.example.com", "_dmarc.example.com"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("*.example.com", "*.example.com"),
        ("*.EXAMPLE.com.", "*.example.com"),
        ("*.com", "*.com"),
        ("api-*.example.com", "api-*.example.com"),
        ("*-API.example.com", "*-api.example.com"),
        ("a*b.example.com", "a*b.example.com"),
        ("192.0.2.7", "192.0.2.7"),
        ("192.0.2.7/32", "192.0.2.7"),
        ("192.0.2.0/24", "192.0.2.0/24"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("2001:db8::/32", "2001:db8::/32"),
        ("2001:DB8:0::1", "2001:db8::1"),
        ("::/0", "::/0"),
        ("::ffff:192.0.2.0/120", "::ffff:192.0.2.0/120"),
    ])
    func parsesAndIsWrittenCanonically(text: String, canonical: String) throws {
        let target = try Target(parsing: text)
        #expect(target.description == canonical)
        #expect(try Target(parsing: canonical) == target)
    }

    @Test func tellsKindsApart() throws {
        let parent = try DomainName("example.com")
        #expect(try Target(parsing: "example.com") == .name(parent))
        #expect(try Target(parsing: "*.example.com") == .subdomains(of: parent))
        #expect(
            try Target(parsing: "api-*-x.example.com")
                == .label(prefix: Array("api-".utf8), suffix: Array("-x".utf8), parent: parent)
        )
        #expect(try Target(parsing: "192.0.2.0/24") == .addresses(IPPrefix(parsing: "192.0.2.0/24")))
    }

    static let label64 = String(repeating: "a", count: 64)
    static let name254 = String(repeating: "abcdefg.", count: 31) + "abcdef"

    @Test(arguments: [
        ("", "an empty target: expected a name, a wildcard, an IP address or a CIDR"),
        ("*", "\"*\" is not a target: use defaultAction: allow"),
        ("*.", "\"*.\" is not a target: a wildcard needs a name to the right of it, as in *.example.com"),
        ("api-*", "\"api-*\" is not a target: a wildcard needs a name to the right of it, as in *.example.com"),
        (
            "a.*.example.com",
            "\"a.*.example.com\" is not a target: one * may stand in the left-most label only, as in *.example.com or api-*.example.com"
        ),
        (
            "*.*.com",
            "\"*.*.com\" is not a target: one * may stand in the left-most label only, as in *.example.com or api-*.example.com"
        ),
        (
            "a*b*.example.com",
            "\"a*b*.example.com\" is not a target: one * may stand in the left-most label only, as in *.example.com or api-*.example.com"
        ),
        ("a..example", "\"a..example\" is not a name: it has an empty label"),
        (".example", "\".example\" is not a name: it has an empty label"),
        (".", "\".\" is not a name: it has an empty label"),
        ("*..example", "\"*..example\" is not a name: it has an empty label"),
        (label64 + ".example", "\"\(label64).example\" is not a name: a label has more than 63 bytes"),
        (label64 + "*.example", "\"\(label64)*.example\" is not a name: a label has more than 63 bytes"),
        (name254, "\"\(name254)\" is not a name: it has more than 253 bytes"),
        ("*." + name254.dropFirst(2), "\"*.\(name254.dropFirst(2))\" is not a name: it has more than 253 bytes"),
        ("bücher.example", "\"bücher.example\" is not ASCII: write its punycode form \"xn--bcher-kva.example\""),
        ("*.BÜCHER.example", "\"*.BÜCHER.example\" is not ASCII: write its punycode form \"*.xn--bcher-kva.example\""),
        ("例え.テスト", "\"例え.テスト\" is not ASCII: write its punycode form \"xn--r8jz45g.xn--zckzah\""),
        ("bu\u{308}cher.example", "\"bu\u{308}cher.example\" is not ASCII: write its punycode form (xn--…)"),
        ("https://example.com/x", "\"https://example.com/x\" is a URL: write only its host, \"example.com\""),
        (
            "example.com:443",
            "\"example.com:443\" has a port: write target \"example.com\" and list the port under ports"
        ),
        (
            "example.com/x",
            "\"example.com/x\" is not a CIDR: expected an address, / and a prefix length of 0...32 (IPv4) or 0...128 (IPv6)"
        ),
        ("exa mple.com", "\"exa mple.com\" is not a name: a space is not a letter, digit, hyphen or underscore"),
        (
            "exa\u{0}mple.com",
            "\"exa\u{0}mple.com\" is not a name: byte 0x00 is not a letter, digit, hyphen or underscore"
        ),
        ("a$*.example", "\"a$*.example\" is not a name: \"$\" is not a letter, digit, hyphen or underscore"),
        (
            "127.1",
            "\"127.1\" is neither a name nor an address: an IPv4 address has four decimal parts of 0...255 without leading zeros"
        ),
        (
            "0x7f.1",
            "\"0x7f.1\" is neither a name nor an address: an IPv4 address has four decimal parts of 0...255 without leading zeros"
        ),
        (
            "192.0.2.256",
            "\"192.0.2.256\" is neither a name nor an address: an IPv4 address has four decimal parts of 0...255 without leading zeros"
        ),
        (
            "192.0.2.07",
            "\"192.0.2.07\" is neither a name nor an address: an IPv4 address has four decimal parts of 0...255 without leading zeros"
        ),
        ("192.0.2.7/24", "\"192.0.2.7/24\" has bits set after the prefix length: write 192.0.2.0/24"),
        ("2001:db8::1/32", "\"2001:db8::1/32\" has bits set after the prefix length: write 2001:db8::/32"),
        (
            "192.0.2.0/33",
            "\"192.0.2.0/33\" is not a CIDR: expected an address, / and a prefix length of 0...32 (IPv4) or 0...128 (IPv6)"
        ),
        ("2001:db8:::1", "\"2001:db8:::1\" is not an IPv6 address"),
        ("[2001:db8::1]", "\"[2001:db8::1]\" is not a target: write the IPv6 address without brackets and zone"),
        ("fe80::1%eth0", "\"fe80::1%eth0\" is not a target: write the IPv6 address without brackets and zone"),
    ])
    func refusesWithAReason(text: String, message: String) {
        let error = #expect(throws: TargetError.self) { _ = try Target(parsing: text) }
        #expect(error?.description == message)
    }
}
