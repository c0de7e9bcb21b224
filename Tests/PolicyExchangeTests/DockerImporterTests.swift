import EgressPolicy
import PolicyExchange
import Testing

@Suite struct DockerImporterTests {
    @Test func `the most specific pattern decides`() throws {
        let imported = try Exchange.load(
            .docker,
            #"""
            $ docker sandbox network proxy my-sandbox \
                --policy deny \
                --allow-host "*.example.com:443" --block-host '*.internal.example.com' \
                --allow-host ok.internal.example.com:8443 --block-host=example.com \
                --allow-host example.com:443
            """#
        )
        #expect(imported.notes.isEmpty)
        try Exchange.check(
            imported,
            [
                ("a.example.com", .allows), ("a.b.example.com", .allows), ("a.example.com:80", .denies),
                ("x.internal.example.com", .denies), ("internal.example.com", .allows),
                ("ok.internal.example.com:8443", .allows), ("ok.internal.example.com:443", .denies),
                ("example.com:443", .allows), ("example.com:80", .denies), ("other.example", .denies),
                ("a.example.com:443/udp", .denies),
            ]
        )
    }

    @Test func `a host without a port is open where only HTTP and TLS pass`() throws {
        let imported = try Exchange.load(
            .docker,
            "docker sandbox network proxy s --policy deny --allow-host a.example --allow-host b.example --allow-host c.example:22"
        )
        #expect(Exchange.notes(imported) == ["1:59 --allow-host narrowed"])
        try Exchange.check(
            imported,
            [
                ("a.example", .allows), ("b.example:80", .allows), ("a.example:22", .denies),
                ("a.example:8080", .allowsMore),
                ("c.example:22", .allows), ("c.example", .denies),
            ]
        )
    }

    @Test func `the file, with the rest allowed`() throws {
        let imported = try Exchange.load(
            .docker,
            """
            {
              "policy": {"default": "allow", "logBlocked": false},
              "network": {
                "allowedDomains": ["api.example.com:8443", "localhost:1234", "203.0.113.9", "10.0.0.9:80"],
                "blockedDomains": ["bad.example.com", "*:443"],
                "blockedCIDRs": ["10.0.0.0/8", "203.0.113.0/24"],
                "bypassDomains": ["pinned.example.com"],
                "bypassCIDRs": []
              }
            }
            """
        )
        #expect(imported.notes.map(\.path).sorted() == [1, 2, 3].map { "network.allowedDomains[\($0)]" })
        try Exchange.check(
            imported,
            [
                ("api.example.com:8443", .allows), ("bad.example.com", .denies), ("bad.example.com:80", .denies),
                ("other.example:80", .allows), ("other.example:443", .denies), ("other.example:22", .denies),
                ("other.example:80/udp", .denies), ("api.example.com@203.0.113.7:8443", .denies),
                ("203.0.113.7:80", .denies),
                ("203.0.113.9:80", .allowsMore), ("10.0.0.9:80", .denies), ("198.51.100.1:80", .allows),
                ("[2001:db8::1]:80", .allows),
            ]
        )
    }

    @Test func `without a policy nothing else is taken to pass`() throws {
        let imported = try Exchange.load(.docker, "docker sandbox network proxy s --allow-host a.example:443")
        #expect(Exchange.notes(imported) == ["1:1 policy narrowed"])
        try Exchange.check(imported, [("a.example", .allows), ("b.example", .allowsMore)])
    }

    @Test func `ranges that are blocked from the start`() throws {
        let imported = try Exchange.load(
            .docker,
            "docker sandbox network proxy s --policy deny --allow-cidr 10.0.0.0/8 --allow-host 10.1.2.3:5432 --allow-host 192.168.0.1:80"
        )
        #expect(imported.notes.count == 2)
        try Exchange.check(
            imported,
            [("10.1.2.3:5432", .allows), ("10.1.2.4:5432", .denies), ("192.168.0.1:80", .denies)]
        )
    }

    @Test(arguments: [
        (
            "docker run x",
            #"f:1:1: expected docker sandbox network proxy NAME OPTION... or proxy-config.json, found "docker""#
        ),
        ("", "f:1:1: expected docker sandbox network proxy NAME OPTION... or proxy-config.json, found nothing"),
        ("docker sandbox network proxy s --policy maybe", #"f:1:41: --policy: expected allow or deny, found "maybe""#),
        ("docker sandbox network proxy s --allow-host", "f:1:32: --allow-host: expected a value behind it"),
        (
            "docker sandbox network proxy s --allow-hosts a.example",
            "f:1:46: --allow-hosts: unknown option: expected --policy, --allow-host, --block-host, --allow-cidr, --block-cidr, --bypass-host or --bypass-cidr"
        ),
        (
            "docker sandbox network proxy s --allow-host $HOST",
            #"f:1:45: "$" means something to a shell: expected one plain command"#
        ),
        (
            "docker sandbox network proxy s --allow-host a.example; rm x",
            #"f:1:54: ";" means something to a shell: expected one plain command"#
        ),
        ("docker sandbox network proxy s --allow-host \"a.example", "f:1:45: expected a closing quote"),
        (
            #"{"network": {"allowDomains": []}}"#,
            "f:1:14: network.allowDomains: unknown key: what it means for egress is not known here; expected one of allowedDomains, blockedDomains, allowedCIDRs, blockedCIDRs, bypassDomains, bypassCIDRs; did you mean allowedDomains?"
        ),
    ])
    func `a mistake is told with its place`(text: String, problem: String) {
        #expect(Exchange.problems(.docker, text) == [problem])
    }
}
