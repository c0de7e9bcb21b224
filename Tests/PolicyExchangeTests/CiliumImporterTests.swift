import EgressPolicy
import NetPrimitives
import PolicyExchange
import Testing

@Suite struct CiliumImporterTests {
    private static func policy(_ egress: String) -> String {
        """
        apiVersion: cilium.io/v2
        kind: CiliumNetworkPolicy
        metadata: {name: sandbox}
        spec:
          endpointSelector: {matchLabels: {role: sandbox}}
        \(egress.split(separator: "\n").map { "  \($0)" }.joined(separator: "\n"))

        """
    }

    @Test func `names and patterns are what Cilium takes them for`() throws {
        let imported = try Exchange.load(
            .cilium,
            Self.policy(
                """
                egress:
                  - toFQDNs:
                      - matchName: api.example.com
                      - matchPattern: "*.example.org"
                      - matchPattern: "**.example.net"
                      - matchPattern: "part*ial.example"
                      - matchPattern: "****.deep.example."
                    toPorts:
                      - ports: [{port: "443", protocol: TCP}]
                """
            )
        )
        #expect(imported.notes.isEmpty)
        try Exchange.check(
            imported,
            [
                ("api.example.com", .allows), ("api.example.com:80", .denies), ("api.example.com:443/udp", .denies),
                ("www.api.example.com", .denies), ("a.example.org", .allows), ("-.example.org", .allows),
                ("_dmarc.example.org", .allows), ("9.example.org", .allows), ("a.b.example.org", .denies),
                ("example.org", .denies), ("a.example.net", .allows), ("a.b.example.net", .allows),
                ("example.net", .denies), ("partial.example", .allows), ("part-extra-ial.example", .allows),
                ("part.ial.example", .denies), ("partia.example", .denies), ("x.deep.example", .allows),
                ("x.y.deep.example", .allows), ("deep.example", .denies), ("other.example", .denies),
            ]
        )
    }

    @Test func `ports and protocols`() throws {
        let imported = try Exchange.load(
            .cilium,
            Self.policy(
                """
                egress:
                  - toFQDNs: [{matchName: any.example}]
                  - toFQDNs: [{matchName: quic.example}]
                    toPorts: [{ports: [{port: "443"}]}]
                  - toCIDR: [198.51.100.0/24]
                    toPorts:
                      - ports: [{port: 5000, endPort: 5010, protocol: TCP}, {port: "53", protocol: UDP}]
                      - ports: [{port: https, protocol: TCP}, {port: "9", protocol: SCTP}]
                """
            )
        )
        #expect(
            Exchange.notes(imported) == [
                "13:19 spec.egress[2].toPorts[1].ports[0].port left out",
                "13:49 spec.egress[2].toPorts[1].ports[1] left out",
            ]
        )
        try Exchange.check(
            imported,
            [
                ("any.example:1", .allows), ("any.example:65535/udp", .allows), ("quic.example", .allows),
                ("quic.example:443/udp", .allows), ("quic.example:80", .denies), ("198.51.100.1:5005", .allows),
                ("198.51.100.1:5011", .denies), ("198.51.100.1:53/udp", .allows), ("198.51.100.1:53", .denies),
                ("198.51.100.1:5005/udp", .denies), ("198.51.100.1:443", .allowsMore),
            ]
        )
    }

    @Test func `blocks less their exceptions, after what is denied`() throws {
        let imported = try Exchange.load(
            .cilium,
            Self.policy(
                """
                egressDeny:
                  - toCIDRSet: [{cidr: 203.0.113.0/24, except: [203.0.113.128/25]}]
                  - toCIDR: [198.51.100.9/32]
                    toPorts: [{ports: [{port: "22"}]}]
                egress:
                  - toCIDRSet:
                      - {cidr: 198.51.0.0/16, except: [198.51.100.0/28, 198.51.200.0/24]}
                      - cidr: 203.0.113.0/24
                """
            )
        )
        #expect(imported.notes.isEmpty)
        try Exchange.check(
            imported,
            [
                ("198.51.0.1:7", .allows), ("198.51.100.1", .denies), ("198.51.100.16", .allows),
                ("198.51.200.200", .denies), ("198.51.201.1:53/udp", .allows), ("198.52.0.0", .denies),
                ("203.0.113.1", .denies), ("203.0.113.129", .allows), ("198.51.100.25:22", .allows),
            ]
        )
        let ssh = try Exchange.load(
            .cilium,
            Self.policy(
                """
                egressDeny: [{toCIDR: [198.51.100.9/32], toPorts: [{ports: [{port: "22"}]}]}]
                egress: [{toCIDR: [198.51.100.0/24]}]
                """
            )
        )
        try Exchange.check(
            ssh,
            [("198.51.100.9:22", .denies), ("198.51.100.9:23", .allows), ("198.51.100.9:22/udp", .denies)]
        )
    }

    @Test func `private blocks are the cluster's own, and an exception does not open what the whole would not`() throws
    {
        let imported = try Exchange.load(
            .cilium,
            Self.policy(
                """
                egress:
                  - toCIDRSet: [{cidr: 0.0.0.0/0, except: [169.254.169.254/32, 10.96.0.0/12]}]
                  - toCIDR: [10.1.0.0/16]
                """
            )
        )
        #expect(Exchange.notes(imported) == ["8:16 spec.egress[1].toCIDR[0] left out"])
        #expect(imported.notes[0].message.contains(#"- {action: allow, target: "10.1.0.0/16"}"#))
        try Exchange.check(
            imported,
            [
                ("192.0.2.1", .allows), ("169.254.169.254:80", .denies), ("169.254.0.1", .denies),
                ("10.1.0.1", .allowsMore), ("10.96.0.1", .denies), ("192.168.0.1", .denies), ("[2001:db8::1]", .denies),
            ]
        )
    }

    @Test func `what is judged inside a connection is left out as a whole`() throws {
        let imported = try Exchange.load(
            .cilium,
            Self.policy(
                """
                egress:
                  - toEndpoints: [{matchLabels: {"k8s:k8s-app": kube-dns}}]
                    toPorts: [{ports: [{port: "53", protocol: ANY}], rules: {dns: [{matchPattern: "*"}]}}]
                  - toFQDNs: [{matchName: api.example.com}]
                    toPorts:
                      - ports: [{port: "80", protocol: TCP}]
                        rules: {http: [{method: GET, path: /v1}]}
                      - ports: [{port: "443", protocol: TCP}]
                  - toFQDNs: [{matchPattern: "*"}, {matchPattern: "a.*.example"}, {matchPattern: "*.*"}]
                  - toEntities: [world, cluster]
                    toPorts: [{ports: [{port: "25", protocol: TCP}]}]
                  - toPorts: [{ports: [{port: "123", protocol: UDP}]}]
                  - {}
                ingress: [{}]
                """
            )
        )
        #expect(
            Exchange.notes(imported) == [
                "19:3 spec.ingress left out", "7:7 spec.egress[0].toEndpoints left out",
                "8:56 spec.egress[0].toPorts[0].rules left out", "12:11 spec.egress[1].toPorts[0].rules left out",
                "14:32 spec.egress[2].toFQDNs[0].matchPattern left out",
                "14:53 spec.egress[2].toFQDNs[1].matchPattern left out",
                "14:84 spec.egress[2].toFQDNs[2].matchPattern left out",
                "15:20 spec.egress[3].toEntities[0] narrowed", "15:27 spec.egress[3].toEntities[1] left out",
                "17:7 spec.egress[4].toPorts narrowed",
            ]
        )
        try Exchange.check(
            imported,
            [
                ("api.example.com", .allows), ("api.example.com:80", .denies), ("any.example", .allowsMore),
                ("192.0.2.1:25", .allows), ("10.0.0.1:25", .denies), ("192.0.2.1:123/udp", .allows),
                ("192.0.2.1:123", .denies), ("10.96.0.10:53/udp", .allowsMore),
            ]
        )
    }

    @Test(arguments: [
        (
            "egressDeny: [{toEndpoints: [{}]}]",
            "f:6:17: spec.egressDeny[0].toEndpoints: pods of the cluster (names are answered by Sandgate itself: no rule for DNS is needed): not known here, and to leave a denial out could allow more; expected toCIDR, toCIDRSet or toEntities"
        ),
        (
            "egressDeny: [{toEntities: [host]}]",
            "f:6:30: spec.egressDeny[0].toEntities[0]: host: not known here, and to leave a denial out could allow more"
        ),
        (
            "egressDeny: [{toFQDNs: [{matchName: a.example}]}]",
            "f:6:17: spec.egressDeny[0].toFQDNs: egressDeny has none: expected toCIDR, toCIDRSet or toEntities"
        ),
        (
            "egress: [{toRequires: [{}]}]",
            "f:6:13: spec.egress[0].toRequires: limits every other rule by labels, which are not known here: remove it, as Cilium 1.19 did"
        ),
        (
            "egress: [{toFQDNs: [{matchName: a.example}], toCIDR: [192.0.2.0/24]}]",
            "f:6:48: spec.egress[0].toCIDR: stands beside toFQDNs, with which Cilium does not accept it"
        ),
        (
            "egress: [{toCIDRSet: [{cidr: 192.0.2.0/24, except: [192.0.3.0/24]}]}]",
            "f:6:55: spec.egress[0].toCIDRSet[0].except[0]: expected a part of 192.0.2.0/24, found 192.0.3.0/24"
        ),
        (
            "egress: [{toPorts: [{ports: [{port: \"70000\"}]}]}]",
            #"f:6:32: spec.egress[0].toPorts[0].ports[0].port: expected a port of 1...65535, found "70000""#
        ),
        ("egressDeny: [{}]", "f:6:16: spec.egressDeny[0]: an empty rule: what is denied cannot be told"),
        (
            "egressDeny: [{toCIDR: []}]",
            "f:6:17: spec.egressDeny[0].toCIDR: an empty list: what is denied cannot be told"
        ),
        (
            "egress: [{toPorts: [{ports: [{port: 0}]}]}]",
            "f:6:32: spec.egress[0].toPorts[0].ports[0].port: expected a port of 1...65535"
        ),
        ("ingress: [{}]", "f:5:3: spec.egress: missing: this policy does not restrict egress"),
        (
            "egress: [{}]\nenableDefaultDeny: {egress: false}",
            "f:7:23: spec.enableDefaultDeny.egress: false: what no rule lists is not denied; expected true"
        ),
    ])
    func `a mistake is told with its place`(egress: String, problem: String) {
        #expect(Exchange.problems(.cilium, Self.policy(egress)) == [problem])
    }

    @Test func `a denial of ports alone, and of every port, is not lost`() throws {
        let imported = try Exchange.load(
            .cilium,
            Self.policy(
                """
                egressDeny:
                  - toCIDR: null
                    toPorts: [{ports: [{port: "25", protocol: TCP}]}]
                  - toCIDR: [198.51.100.9/32]
                    toPorts: [{ports: [{port: "0"}]}]
                egress: [{toCIDR: [198.51.100.0/24]}, {toFQDNs: [{matchName: a.example}]}]
                """
            )
        )
        #expect(imported.notes.isEmpty)
        try Exchange.check(
            imported,
            [
                ("198.51.100.1:25", .denies), ("198.51.100.1:26", .allows), ("198.51.100.9", .denies),
                ("a.example:25", .denies), ("a.example", .allows), ("198.51.100.1:25/udp", .allows),
            ]
        )
    }

    @Test func `only a policy of Cilium's is read, and one at a time`() {
        #expect(
            Exchange.problems(.cilium, "kind: NetworkPolicy\n") == [
                "f:1:7: kind: expected CiliumNetworkPolicy or CiliumClusterwideNetworkPolicy, found NetworkPolicy"
            ]
        )
        #expect(
            Exchange.problems(.cilium, "kind: CiliumNetworkPolicy\nspecs: [{egress: []}, {egress: []}]\n").count == 1
        )
    }
}
