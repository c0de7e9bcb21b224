import EgressPolicy
import NetPrimitives
import PolicyDocument
import Testing

struct PolicyExpectationTests {
    private static let now = WallTime(microseconds: 1_800_000_000_000_000)

    private func load(_ text: String) throws(DocumentError) -> [PolicyExpectation] {
        try PolicyExpectation.load(bytes: Array(text.utf8), format: .yaml, file: "p.yaml")
    }

    private func problems(_ text: String) -> [String] {
        do {
            _ = try load(text)
            return []
        } catch {
            return error.problems.map(\.description)
        }
    }

    @Test(
        arguments: [
            ("example.com", Flow(name: try! DomainName("example.com"), address: nil, port: 443, transport: .tcp)),
            ("Example.COM:80", Flow(name: try! DomainName("example.com"), address: nil, port: 80, transport: .tcp)),
            ("a.example:53/udp", Flow(name: try! DomainName("a.example"), address: nil, port: 53, transport: .udp)),
            ("a.example/tcp", Flow(name: try! DomainName("a.example"), address: nil, port: 443, transport: .tcp)),
            ("192.0.2.1", Flow(name: nil, address: IPAddress("192.0.2.1"), port: 443, transport: .tcp)),
            ("192.0.2.1:22", Flow(name: nil, address: IPAddress("192.0.2.1"), port: 22, transport: .tcp)),
            ("2001:db8::1", Flow(name: nil, address: IPAddress("2001:db8::1"), port: 443, transport: .tcp)),
            ("[2001:db8::1]:53/udp", Flow(name: nil, address: IPAddress("2001:db8::1"), port: 53, transport: .udp)),
        ]
    )
    func `a destination is a host with a port and a protocol, if need be`(text: String, flow: Flow) throws {
        let expectations = try load("expect: {allow: [\"\(text)\"]}")
        #expect(expectations == [PolicyExpectation(.allow, flow, text: text, line: 1)])
    }

    @Test func `a destination may be a mapping`() throws {
        let expectations = try load(
            """
            expect:
              deny:
                - {host: db.example, ip: 10.0.0.7, port: 5432, protocol: tcp}
                - {ip: "2001:db8::1", protocol: udp}
            """
        )
        #expect(expectations.map(\.text) == ["db.example at 10.0.0.7:5432/tcp", "[2001:db8::1]:443/udp"])
        #expect(expectations.map(\.line) == [3, 4])
        #expect(expectations.allSatisfy { $0.action == .deny })
    }

    @Test func `the lists stand below expect or at the top`() throws {
        let nested = try load("networkPolicy: {}\nexpect:\n  allow: [a.example]\n  deny: [b.example]\n")
        #expect(nested.map(\.text) == ["a.example", "b.example"])
        let top = try load("allow: [a.example]\ndeny: [b.example]\n")
        #expect(top.map(\.action) == [.allow, .deny])
        #expect(try load("networkPolicy: {}\n").isEmpty)
        #expect(try load("").isEmpty)
        #expect(try load("expect: {allow: , deny: []}").isEmpty)
    }

    @Test(
        arguments: [
            ("expect: [a.example]", "p.yaml:1:9: expect: expected the lists allow and deny, found a list"),
            ("expect: {permit: []}", "p.yaml:1:10: expect.permit: unknown key: expected allow or deny"),
            ("allow: a.example", "p.yaml:1:8: allow: expected a list of destinations, found a.example"),
            ("allow: [\"a..b\"]", "p.yaml:1:9: allow[0]: expected HOST, HOST:PORT or HOST:PORT/udp, found \"a..b\""),
            ("allow: [\"*.a.example\"]", "HOST:PORT"), ("allow: [\"a.example:0\"]", "HOST:PORT"),
            ("allow: [\"a.example:70000\"]", "HOST:PORT"), ("allow: [\"a.example/icmp\"]", "HOST:PORT"),
            ("allow: [\"https://a.example/\"]", "HOST:PORT"), ("allow: [\"[2001:db8::1]x\"]", "HOST:PORT"),
            ("allow: [[a]]", "allow[0]: expected a destination"), ("allow: [{port: 1}]", "expected host or ip"),
            ("allow: [{host: a..b}]", "allow[0].host: expected a name"),
            ("allow: [{ip: 1.2.3}]", "allow[0].ip: expected an IP address"),
            ("allow: [{host: a, port: x}]", "allow[0].port: expected a port of 1...65535, found x"),
            ("allow: [{host: a, protocol: icmp}]", "allow[0].protocol: expected tcp or udp, found icmp"),
            (
                "allow: [{host: a, prt: 1}]",
                "allow[0].prt: unknown key: expected host, ip, port or protocol; did you mean port?"
            ),
        ]
    )
    func `what is not understood is a problem`(text: String, message: String) {
        let problems = problems(text)
        #expect(problems.count == 1)
        #expect(problems.first?.contains(message) == true)
    }

    @Test func `an expectation is met by what would be enforced`() throws {
        let rule = Rule(.allow, try Target(parsing: "a.example"), ports: [PortRange(443)!])
        let addresses = Rule(.allow, try Target(parsing: "192.0.2.0/24"))
        func isMet(_ mode: Policy.Mode, _ text: String) throws -> Bool {
            let policy = CompiledPolicy(Policy(mode: mode, rules: [rule, addresses]))
            let expectation = try #require(try load(text).first)
            return expectation.isMet(by: expectation.verdict(of: policy, at: Self.now))
        }
        for mode in Policy.Mode.allCases {
            #expect(try isMet(mode, "allow: [a.example]"))
            #expect(try !isMet(mode, "deny: [a.example]"))
            #expect(try isMet(mode, "deny: [b.example]"))
            #expect(try !isMet(mode, "allow: [\"a.example:80\"]"))
            #expect(try isMet(mode, "allow: [\"192.0.2.7:22\"]"))
            // By an address rule, though its name would not be resolved.
            #expect(try isMet(mode, "allow: [{host: b.example, ip: 192.0.2.7}]"))
        }
    }

    @Test func `a name that is not resolved is denied`() throws {
        let policy = CompiledPolicy(
            Policy(defaultAction: .allow, rules: [Rule(.deny, try Target(parsing: "a.example"))])
        )
        let expectation = try #require(try load("deny: [a.example]").first)
        #expect(expectation.isMet(by: expectation.verdict(of: policy, at: Self.now)))
    }
}
