import EgressPolicy
import PolicyExchange
import Testing

@Suite struct SmokescreenImporterTests {
    private static let acl = """
        ---
        version: v1
        services:
          - name: billing
            project: payments
            action: enforce
            allowed_domains:
              - api.example.com
              - "*.bank.example"
              - bad.example.net # goes before the global list
              - 10.0.0.7
          - name: crawler
            project: search
            action: open
          - name: trial
            project: search
            action: report
            allowed_domains: [known.example]
        default:
          project: other
          action: enforce
          allowed_domains: [default.example.com]
        global_allow_list: [status.example.org, "*.both.example"]
        global_deny_list: ["bad.example.net", "*.evil.example", x.both.example]
        """

    private func load(_ service: String?) throws -> PolicyImport {
        try Exchange.load(.smokescreen, Self.acl, selection: .init(service: service))
    }

    @Test func `a service's names, then the global lists, then its action`() throws {
        let imported = try load("billing")
        #expect(Exchange.notes(imported) == ["11:9 services[0].allowed_domains[3] left out"])
        try Exchange.check(
            imported,
            [
                ("api.example.com", .allows), ("api.example.com:8443", .allows), ("api.example.com:443/udp", .denies),
                ("www.api.example.com", .denies), ("a.bank.example", .allows), ("a.b.bank.example", .allows),
                ("bank.example", .denies), ("bad.example.net", .allows), ("a.evil.example", .denies),
                ("status.example.org", .allows), ("x.both.example", .denies), ("y.both.example", .allows),
                ("other.example", .denies), ("10.0.0.7", .denies), ("default.example.com", .denies),
            ]
        )
    }

    @Test func `an open service is denied only what is denied to all`() throws {
        let imported = try load("crawler")
        #expect(imported.notes.isEmpty)
        try Exchange.check(
            imported,
            [
                ("other.example", .allows), ("bad.example.net", .denies), ("a.evil.example:8080", .denies),
                ("evil.example", .allows), ("192.0.2.1:22", .allows), ("10.0.0.7", .denies),
                ("other.example:443/udp", .denies),
            ]
        )
    }

    @Test func `a report is not ours, which would pass what is denied to all`() throws {
        let imported = try load("trial")
        #expect(Exchange.notes(imported) == ["17:5 services[2].action narrowed"])
        #expect(imported.policy.mode == .enforce)
        try Exchange.check(
            imported,
            [("other.example", .allows), ("bad.example.net", .denies), ("known.example", .allows)]
        )
    }

    @Test func `without a service the default, and a note for each other`() throws {
        let imported = try load(nil)
        #expect(
            Exchange.notes(imported) == [
                "4:5 services[0] left out", "12:5 services[1] left out", "15:5 services[2] left out",
            ]
        )
        try Exchange.check(
            imported,
            [("default.example.com", .allows), ("status.example.org", .allows), ("api.example.com", .denies)]
        )
    }

    @Test(arguments: [
        ("version: v2\nservices: []\n", "f:1:10: version: expected v1, found v2"),
        ("services: []\n", "f:1:1: version: missing: expected v1"),
        ("version: v1\n", "f:1:1: services: missing: expected a list of services"),
        (
            "version: v1\nservices:\n  - name: a\n    action: allow\n",
            "f:4:13: services[0].action: expected enforce, report or open, found allow"
        ),
        (
            "version: v1\nservices:\n  - name: a\n    action: enforce\n    allowed_domain: [a.example]\n",
            "f:5:5: services[0].allowed_domain: unknown key: what it means for egress is not known here; expected one of name, project, action, allowed_domains, allowed_external_proxies, mitm_domains; did you mean allowed_domains?"
        ),
        (
            "version: v1\nservices:\n  - name: a\n    action: enforce\n    allowed_domains: [api.*.example.com]\n",
            #"f:5:23: services[0].allowed_domains[0]: "api.*.example.com" is not a target: one * may stand in the left-most label only, as in *.example.com or api-*.example.com"#
        ),
        (
            "version: v1\nservices:\n  - name: a\n    action: enforce\nglobal_deny_list: ['*example.com']\n",
            #"f:5:20: global_deny_list[0]: expected a name, *.name or an address, found "*example.com""#
        ),
        ("version: v1\nservices: []\n", "f:2:1: services: none, and no default: expected a service"),
    ])
    func `a mistake is told with its place`(text: String, problem: String) {
        #expect(Exchange.problems(.smokescreen, text) == [problem])
    }

    @Test func `a service that is not there is told with those that are`() {
        let problems = Exchange.problems(.smokescreen, Self.acl, selection: .init(service: "x"))
        #expect(problems == [#"f:3:1: services: no service "x": expected one of billing, crawler, trial"#])
    }
}
