import EgressPolicy
import PolicyExchange
import Testing

@Suite struct E2BImporterTests {
    @Test func `what is allowed goes before what is denied, and with everything denied nothing else passes`() throws {
        let imported = try Exchange.load(
            .e2b,
            """
            {
              "network": {
                "allowOut": ["api.example.com", "*.cdn.example.com", "198.51.100.7", "203.0.113.0/24"],
                "denyOut": ["0.0.0.0/0"]
              }
            }
            """
        )
        #expect(imported.notes.isEmpty)
        try Exchange.check(
            imported,
            [
                ("api.example.com", .allows), ("api.example.com:80", .allows), ("api.example.com:8443", .denies),
                ("api.example.com:443/udp", .denies), ("www.api.example.com", .denies), ("example.com", .denies),
                ("eu.cdn.example.com", .allows), ("a.eu.cdn.example.com", .allows), ("cdn.example.com", .denies),
                ("198.51.100.7:22", .allows), ("198.51.100.7:53/udp", .allows), ("198.51.100.8", .denies),
                ("203.0.113.200:443/udp", .allows), ("[2001:db8::1]", .denies), ("other.example", .denies),
            ]
        )
    }

    @Test func `without a denial of everything the rest passes, over IPv4`() throws {
        let imported = try Exchange.load(
            .e2b,
            """
            {"deny_out": ["198.51.100.0/24", "192.0.2.7"], "allow_out": ["198.51.100.9"]}
            """
        )
        #expect(imported.notes.isEmpty)
        try Exchange.check(
            imported,
            [
                ("198.51.100.9", .allows), ("198.51.100.8", .denies), ("192.0.2.7:80", .denies), ("192.0.2.8", .allows),
                ("192.0.2.8:53/udp", .allows), ("198.51.100.8:53/udp", .denies), ("any.example", .allows),
                ("any.example:25", .allows), ("[2001:db8::1]", .denies), ("169.254.169.254:80", .denies),
                ("10.0.0.1", .denies),
            ]
        )
    }

    @Test func `access that is switched off is a denial of everything`() throws {
        for text in [#"{"allowInternetAccess": false}"#, "allow_internet_access: false\nnetwork: {}\n"] {
            let imported = try Exchange.load(.e2b, text)
            #expect(imported.policy == .init())
            #expect(imported.yaml.hasSuffix("  defaultAction: deny\n  egress: []\n"))
        }
        let open = try Exchange.load(.e2b, #"{"allowInternetAccess": true}"#)
        try Exchange.check(open, [("any.example", .allows), ("10.0.0.1", .denies)])
    }

    @Test func `what has no equal is told where it stood`() throws {
        let imported = try Exchange.load(
            .e2b,
            """
            network:
              allowOut:
                - api.example.com
                - "*"
                - 10.1.0.0/16
                - other.example.com
              denyOut: [0.0.0.0/0]
              allowPublicTraffic: false
            """
        )
        #expect(
            Exchange.notes(imported) == [
                "4:7 network.allowOut[1] left out", "5:7 network.allowOut[2] left out",
                "8:3 network.allowPublicTraffic left out",
            ]
        )
        let lines = imported.yaml.split(separator: "\n").map(String.init)
        let place = try #require(lines.firstIndex { $0.contains("allowOut[1], line 4: left out: ") })
        #expect(lines[place - 1].contains("api.example.com"))
        #expect(lines[place + 2].contains("other.example.com"))
        #expect(lines[place + 1].hasSuffix(#"- {action: allow, target: "10.1.0.0/16"}"#))
        try Exchange.check(imported, [("any.example", .allowsMore), ("10.1.0.1", .denies)])
    }

    @Test(arguments: [
        (
            #"{"denyOut": ["bad.example.com"]}"#,
            #"f:1:14: denyOut[0]: expected an address or a CIDR such as 192.0.2.0/24, found "bad.example.com""#
        ),
        (#"{"allowOut": "a.example"}"#, #"f:1:14: allowOut: expected a list of names and CIDRs, found "a.example""#),
        (
            #"{"allowOut": ["api-*.example.com"]}"#,
            #"f:1:15: allowOut[0]: expected a name, *.name or an address, found "api-*.example.com""#
        ),
        (
            #"{"allowOut": ["a.example"], "allow_out": []}"#,
            "f:1:29: allow_out: allowOut and allow_out are the same option"
        ),
        (#"{"allowInternetAccess": "no"}"#, #"f:1:25: allowInternetAccess: expected true or false, found "no""#),
        (#"[]"#, "f:1:1: expected a mapping, found a list"),
        ("", "f:1:1: expected a mapping, found nothing"),
    ])
    func `a mistake is told with its place`(text: String, problem: String) {
        #expect(Exchange.problems(.e2b, text) == [problem])
    }

    @Test func `an unknown key is refused: it could deny`() {
        let problems = Exchange.problems(.e2b, #"{"network": {"denyPorts": [25]}}"#)
        #expect(problems.count == 1)
        #expect(problems[0].hasPrefix("f:1:14: network.denyPorts: unknown key"))
    }
}
