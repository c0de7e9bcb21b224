import EgressPolicy
import NetPrimitives
import PolicyDocument
import Testing

/// Reads with what tests share.
enum Reading {
    static let now = WallTime(microseconds: 1_764_547_200_000_000)  // 2025-12-01T00:00:00Z

    static func load(_ text: String, _ format: PolicyDocument.Format = .automatic, file: String = "p")
        throws(DocumentError)
        -> PolicyDocument
    {
        try PolicyDocument.load(bytes: Array(text.utf8), format: format, file: file, now: now)
    }

    static func problems(_ text: String, _ format: PolicyDocument.Format = .automatic) -> [String] {
        do {
            _ = try load(text, format)
            return []
        } catch {
            return error.problems.map(\.description)
        }
    }
}

@Suite struct PolicyDocumentTests {
    static let full = Policy(
        defaultAction: .deny,
        mode: .report,
        rules: [
            Rule(
                .allow,
                try! Target(parsing: "*.github.com"),
                ports: [PortRange(443)!, PortRange(8000, 8100)!],
                transport: .tcp,
                expiresAt: Reading.now.advanced(bySeconds: 31_536_000),
                comment: "why: \"this\""
            ),
            Rule(.deny, try! Target(parsing: "192.0.2.0/24")),
        ]
    )

    @Test func readsYAML() throws {
        let document = try Reading.load(
            """
            networkPolicy:
              defaultAction: deny            # or allow
              mode: report
              egress:
                - action: allow
                  target: "*.github.com"
                  ports: [443, "8000-8100"]
                  protocol: tcp
                  expiresAt: 2026-12-01T00:00:00Z
                  comment: 'why: "this"'
                - action: deny
                  target: 192.0.2.0/24
                  protocol: any
            """
        )
        var full = Self.full
        full.rules[1].statesAnyTransport = true
        #expect(document.policy == full)
        #expect(document.warnings.isEmpty)
    }

    @Test func readsJSON() throws {
        let document = try Reading.load(
            """
            {"networkPolicy": {"defaultAction": "deny", "mode": "report", "egress": [
              {"action": "allow", "target": "*.github.com", "ports": [443, "8000-8100"], "protocol": "tcp",
               "expiresAt": "2026-12-01T00:00:00Z", "comment": "why: \\"this\\""},
              {"action": "deny", "target": "192.0.2.0/24", "protocol": null, "ports": null}]}}
            """
        )
        #expect(document.policy == Self.full)
    }

    @Test(arguments: [
        "defaultAction: deny\nmode: report\n", "default_action: deny\nmode: report\n",
        "networkPolicy: {defaultAction: DENY, mode: Report}\n",
        #"{"default_action": "deny", "mode": "report"}"#,
        #"{"networkPolicy": {"mode": "report", "defaultAction": ""}}"#,
        #"{"image": {"uri": "x"}, "timeout": 1, "mode": 7, "networkPolicy": {"mode": "report", "egress": null}, "env": {"a": 1, "a": 2}}"#,
        "image: {uri: x}\ntimeout: 10\nnetworkPolicy:\n  mode: report\n  egress: []\nentrypoint: [sleep]\n",
    ])
    func findsThePolicyInWhatIsAroundIt(text: String) throws {
        #expect(try Reading.load(text).policy == Policy(mode: .report))
    }

    @Test(arguments: [
        "", " \n", "{}", "null", "~", "# nothing\n", "---\n", "networkPolicy:\n", #"{"networkPolicy": null}"#,
        "\u{feff}{}",
    ])
    func nothingDeniesEverything(text: String) throws {
        #expect(try Reading.load(text).policy == Policy())
    }

    @Test func expandsDurationsFromNow() throws {
        for (text, seconds) in [("30s", 30), ("10m", 600), ("1h", 3_600), ("2d", 172_800)] as [(String, Int64)] {
            let policy = try Reading.load("egress: [{action: allow, target: a.example, ttl: \(text)}]").policy
            #expect(policy.rules[0].expiresAt == Reading.now.advanced(bySeconds: seconds))
        }
    }

    @Test(
        arguments: [
            ("2025-12-01T00:00:00Z", 0), ("2025-12-01t01:00:00.5+01:00", 500_000),
            ("2025-11-30T23:59:59.000001-00:00", -999_999),
            ("2024-02-29T00:00:00Z", -55_382_400_000_000),
        ] as [(String, Int64)]
    )
    func readsTimes(text: String, offset: Int64) throws {
        let policy = try Reading.load("egress: [{action: allow, target: a.example, expiresAt: \"\(text)\"}]").policy
        #expect(policy.rules[0].expiresAt?.microseconds == Reading.now.microseconds + offset)
    }

    @Test(arguments: [
        "2025-12-01", "2025-12-01T00:00:00", "2025-12-01 00:00:00Z", "2025-02-29T00:00:00Z", "2025-13-01T00:00:00Z",
        "2025-12-01T24:00:00Z", "2025-12-01T00:00:60Z", "2025-12-01T00:00Z", "2025-12-01T00:00:00.Z",
        "2025-12-01T00:00:00+0100", "2025-12-01T00:00:00Zx", "1764547200", "tomorrow",
    ])
    func refusesOtherTimes(text: String) {
        #expect(
            Reading.problems("egress: [{action: allow, target: a.example, expiresAt: \"\(text)\"}]") == [
                "p:1:56: egress[0].expiresAt: expected a time as in RFC 3339, such as 2026-12-01T00:00:00Z, found \"\(text)\""
            ]
        )
    }

    // MARK: Warnings

    @Test(arguments: [
        (
            "{action: allow, target: \"*.com\"}",
            "p:1:10: egress[0].target: \"*.com\" allows names of anybody: everybody can get one below \"com\""
        ),
        (
            "{action: allow, target: \"*.co.uk\"}",
            "p:1:10: egress[0].target: \"*.co.uk\" allows names of anybody: everybody can get one below \"co.uk\""
        ),
        (
            "{action: allow, target: \"a-*.github.io\"}",
            "p:1:10: egress[0].target: \"a-*.github.io\" allows names of anybody: everybody can get one below \"github.io\""
        ),
        (
            "{action: allow, target: a.example, protocol: udp}",
            "p:1:10: egress[0]: allows nothing: for a name UDP is open only on ports that are listed"
        ),
        (
            "{action: allow, target: a.example, expiresAt: 2025-12-01T00:00:00Z}",
            "p:1:10: egress[0].expiresAt: has passed: the rule has no effect"
        ),
    ])
    func warns(rule: String, warning: String) throws {
        let document = try Reading.load("egress: [\(rule)]")
        #expect(document.warnings.map(\.description) == [warning])
        #expect(document.policy.rules.count == 1)
    }

    @Test func denyingAPublicSuffixIsFine() throws {
        #expect(try Reading.load("egress: [{action: deny, target: \"*.com\"}]").warnings.isEmpty)
    }

    // MARK: Lists alone

    @Test func readsListsOfRulesAndTargets() throws {
        let rules = try PolicyDocument.loadRules(
            bytes: Array(#"[{"action": "allow", "target": "a.example"}]"#.utf8),
            format: .json,
            file: "body",
            now: Reading.now
        )
        #expect(rules.rules == [Rule(.allow, try Target(parsing: "a.example"))])
        let targets = try PolicyDocument.loadTargets(
            bytes: Array(#"["a.example", "*.B.example"]"#.utf8),
            format: .json,
            file: "body"
        )
        #expect(targets.map(\.description) == ["a.example", "*.b.example"])
        let error = #expect(throws: DocumentError.self) {
            _ = try PolicyDocument.loadTargets(bytes: Array(#"["a", "*", 3]"#.utf8), format: .json, file: "body")
        }
        #expect(
            error?.description
                == "body:1:7: [1]: \"*\" is not a target: use defaultAction: allow\nbody:1:12: [2]: expected a string, found 3"
        )
        for text in ["", "null", "{}"] {
            #expect(throws: DocumentError.self) {
                _ = try PolicyDocument.loadRules(bytes: Array(text.utf8), format: .json, file: "body", now: Reading.now)
            }
        }
    }

    // MARK: Writing

    @Test func whatIsWrittenReadsBack() throws {
        let odd = Rule(
            .allow,
            try Target(parsing: "api-*.example.com"),
            ports: [PortRange(53)!],
            transport: .udp,
            expiresAt: WallTime(microseconds: 1_764_547_200_000_001),
            comment: "a: #b\n\t\u{0}\u{7f}\u{85}\u{2028}\\ \"ü\" 😀"
        )
        for policy in [Self.full, Policy(), Policy(defaultAction: .allow, rules: [odd, odd])] {
            #expect(try Reading.load(PolicyDocument.yaml(of: policy), .yaml).policy == policy)
            #expect(try Reading.load(PolicyDocument.json(of: policy), .json).policy == policy)
        }
    }

    @Test func writesARuleOnOneLine() {
        #expect(
            PolicyDocument.yaml(of: Self.full.rules[0])
                == #"- {action: allow, target: "*.github.com", ports: [443, "8000-8100"], protocol: tcp, expiresAt: "2026-12-01T00:00:00Z", comment: "why: \"this\""}"#
        )
        #expect(PolicyDocument.json(of: Self.full.rules[1]) == #"{"action":"deny","target":"192.0.2.0/24"}"#)
        #expect(PolicyDocument.json(of: Policy()) == #"{"defaultAction":"deny","egress":[]}"#)
    }
}
