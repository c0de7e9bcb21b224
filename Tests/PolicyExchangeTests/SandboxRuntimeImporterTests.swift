import EgressPolicy
import PolicyExchange
import Testing

@Suite struct SandboxRuntimeImporterTests {
    @Test func `denied names go before allowed ones`() throws {
        let imported = try Exchange.load(
            .sandboxRuntime,
            """
            {
              "network": {
                "allowedDomains": ["example.com", "*.example.com", "git.example.org:22", "192.0.2.9:8080", "[2001:db8::5]"],
                "deniedDomains": ["uploads.example.com", "*.ads.example.com", "www.example.com:80"],
                "deniedDomainReasons": {"uploads.example.com": "use the \\"mirror\\""},
                "allowUnixSockets": ["/run/agent.sock"],
                "allowLocalBinding": true
              },
              "filesystem": {"denyRead": ["~/.ssh"]}
            }
            """
        )
        #expect(imported.notes.isEmpty)
        #expect(imported.policy.rules[0].comment == "use the \"mirror\"")
        try Exchange.check(
            imported,
            [
                ("example.com", .allows), ("example.com:9999", .allows), ("example.com:443/udp", .denies),
                ("a.example.com", .allows), ("a.b.example.com:8443", .allows), ("notexample.com", .denies),
                ("uploads.example.com", .denies), ("x.uploads.example.com", .allows), ("x.ads.example.com", .denies),
                ("x.y.ads.example.com:22", .denies), ("ads.example.com", .allows), ("www.example.com:80", .denies),
                ("www.example.com:443", .allows), ("git.example.org:22", .allows), ("git.example.org", .denies),
                ("192.0.2.9:8080", .allows), ("192.0.2.9:80", .denies), ("[2001:db8::5]", .allows),
                ("[2001:db8::6]", .denies), ("other.example", .denies),
            ]
        )
    }

    @Test func `a star among the denied takes the port from everything`() throws {
        let ssh = try Exchange.load(
            .sandboxRuntime,
            #"{"network": {"allowedDomains": ["a.example", "b.example:22", "c.example:443"], "deniedDomains": ["*:22", "*:25"]}}"#
        )
        try Exchange.check(
            ssh,
            [
                ("a.example", .allows), ("a.example:21", .allows), ("a.example:22", .denies), ("a.example:25", .denies),
                ("a.example:65535", .allows), ("b.example:22", .denies), ("c.example", .allows),
                ("c.example:22", .denies),
            ]
        )
        let nothing = try Exchange.load(
            .sandboxRuntime,
            #"{"network": {"allowedDomains": ["a.example"], "deniedDomains": ["*"]}}"#
        )
        #expect(nothing.policy == Policy())
    }

    @Test func `addresses that names must not lead to`() throws {
        let imported = try Exchange.load(
            .sandboxRuntime,
            """
            {"network": {"allowedDomains": ["db.example.com", "198.51.100.7:443"], "deniedDomains": [],
             "deniedResolvedAddresses": ["198.51.100.0/24"]}}
            """
        )
        try Exchange.check(
            imported,
            [
                ("db.example.com@198.51.100.9", .denies), ("db.example.com@198.51.100.7", .allows),
                ("db.example.com@198.51.100.7:80", .denies), ("db.example.com@203.0.113.1", .allows),
            ]
        )
    }

    @Test func `Claude Code's settings are read, and what has no equal is told`() throws {
        let imported = try Exchange.load(
            .sandboxRuntime,
            """
            {"permissions": {"allow": []}, "sandbox": {"enabled": true, "network": {
              "allowedDomains": ["localhost:3000", "127.0.0.1", "example.com"],
              "allowAllDomains": true,
              "tlsTerminate": {"excludeDomains": ["example.com"]}}}}
            """
        )
        #expect(
            Exchange.notes(imported) == [
                "3:3 sandbox.network.allowAllDomains left out", "4:3 sandbox.network.tlsTerminate left out",
                "2:22 sandbox.network.allowedDomains[0] left out", "2:40 sandbox.network.allowedDomains[1] left out",
            ]
        )
        try Exchange.check(imported, [("example.com", .allows), ("any.example", .allowsMore), ("127.0.0.1", .denies)])
    }

    @Test(arguments: [
        (
            #"{"network": {"allowedDomains": ["*"]}}"#,
            #"f:1:33: network.allowedDomains[0]: "*" is not a target: use defaultAction: allow"#
        ),
        (
            #"{"network": {"allowedDomains": ["*.com"]}}"#,
            #"f:1:33: network.allowedDomains[0]: expected a name of at least two labels, or a wildcard such as *.example.com, found "*.com""#
        ),
        (
            #"{"network": {"allowedDomains": ["https://a.example/"]}}"#,
            "f:1:33: network.allowedDomains[0]: expected a port of 1...65535 behind the colon, found \"https://a.example/\""
        ),
        (
            #"{"network": {"allowedDomains": ["10.0.0.0/8"]}}"#,
            #"f:1:33: network.allowedDomains[0]: expected a name, *.name or an address, found "10.0.0.0/8""#
        ),
        (
            #"{"network": {"allowedDomains": ["a.example:0443"]}}"#,
            #"f:1:33: network.allowedDomains[0]: expected a port of 1...65535 behind the colon, found "a.example:0443""#
        ),
        (
            #"{"network": {"deniedDomains": []}}"#,
            "f:1:14: network.allowedDomains: missing: an empty list denies everything"
        ),
        (#"{"filesystem": {}}"#, "f:1:1: network: missing: expected a mapping with allowedDomains"),
    ])
    func `a mistake is told with its place`(text: String, problem: String) {
        #expect(Exchange.problems(.sandboxRuntime, text) == [problem])
    }

    @Test func `an unknown key is refused`() {
        let problems = Exchange.problems(
            .sandboxRuntime,
            #"{"network": {"allowedDomains": [], "denyDomains": ["a.example"]}}"#
        )
        #expect(problems.count == 1 && problems[0].hasPrefix("f:1:36: network.denyDomains: unknown key"))
    }
}
