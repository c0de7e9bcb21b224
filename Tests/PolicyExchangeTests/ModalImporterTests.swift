import EgressPolicy
import PolicyExchange
import Testing

@Suite struct ModalImporterTests {
    @Test func `a blocked network denies everything`() throws {
        for text in ["block_network: true\n", #"{"blockNetwork": true, "cpu": 2}"#] {
            #expect(try Exchange.load(.modal, text).policy == Policy())
        }
    }

    @Test func `ranges are open on every port and protocol, names for TLS alone`() throws {
        let imported = try Exchange.load(
            .modal,
            """
            {"outbound_cidr_allowlist": ["198.51.100.0/24", "10.0.1.0/24"],
             "outbound_domain_allowlist": ["api.example.com", "*.example.org"], "cpu": 1}
            """
        )
        #expect(imported.notes.isEmpty)
        try Exchange.check(
            imported,
            [
                ("198.51.100.1:22", .allows), ("198.51.100.1:53/udp", .allows), ("198.51.101.1", .denies),
                ("10.0.1.5:5432", .allows), ("10.0.2.5", .denies), ("api.example.com", .allows),
                ("api.example.com:80", .denies), ("api.example.com:443/udp", .denies), ("www.api.example.com", .denies),
                ("a.example.org", .allows), ("7.example.org", .allows), ("_x.example.org", .allows),
                ("example.org", .denies), ("a.b.example.org", .denies), ("other.example", .denies),
            ]
        )
        #expect(
            imported.yaml.contains(
                #"if any depth is meant: - {action: allow, target: "*.example.org", ports: [443], protocol: tcp}"#
            )
        )
    }

    @Test func `an empty list allows nothing, and no list everything`() throws {
        #expect(try Exchange.load(.modal, "cidr_allowlist: []\n").policy == Policy())
        let open = try Exchange.load(.modal, "block_network: false\ncidr_allowlist: null\n")
        try Exchange.check(
            open,
            [
                ("any.example:25", .allows), ("192.0.2.1:53/udp", .allows), ("[2001:db8::1]", .allows),
                ("10.0.0.1", .denies),
            ]
        )
    }

    @Test func `what has no equal is told`() throws {
        let imported = try Exchange.load(
            .modal,
            """
            outbound_domain_allowlist:
              - "*"
              - api.example.com
            inbound_cidr_allowlist: [192.0.2.0/24]
            """
        )
        #expect(
            Exchange.notes(imported) == [
                "4:1 inbound_cidr_allowlist left out", "2:5 outbound_domain_allowlist[0] left out",
            ]
        )
        try Exchange.check(imported, [("api.example.com", .allows), ("any.example", .allowsMore)])
    }

    @Test(arguments: [
        (
            "block_network: true\ncidr_allowlist: [192.0.2.0/24]\n",
            "f:2:1: cidr_allowlist: stands beside block_network, with which Modal does not accept it"
        ),
        (
            "cidr_allowlist: [a.example]\n",
            #"f:1:18: cidr_allowlist[0]: expected an address or a CIDR such as 192.0.2.0/24, found "a.example""#
        ),
        (
            "cidr_allowlist: [192.0.2.0/24]\noutboundCidrAllowlist: []\n",
            "f:1:1: cidr_allowlist: the same option as outboundCidrAllowlist"
        ),
        (
            "outbound_domain_allowlist: [192.0.2.1]\n",
            #"f:1:29: outbound_domain_allowlist[0]: expected a name, found "192.0.2.1""#
        ),
    ])
    func `a mistake is told with its place`(text: String, problem: String) {
        #expect(Exchange.problems(.modal, text) == [problem])
    }

    @Test func `a mistyped list is not taken for none`() {
        #expect(Exchange.problems(.modal, "outbound_cidr_allow_list: [192.0.2.0/24]\n").count == 2)
        #expect(Exchange.problems(.modal, "cpu: 1\n").count == 1)
    }
}
