import EgressPolicy
import PolicyDocument
import Testing

/// What is refused, and in which words.
@Suite struct RefusalTests {
    @Test(arguments: [
        // The document.
        ("[]", "p:1:1: expected a policy, found a list: rules stand under egress"),
        ("text", "p:1:1: expected a policy, found text"),
        (
            #"{"image": "x"}"#,
            "p:1:1: no policy here: expected networkPolicy, or defaultAction, mode and egress; {} denies everything"
        ),
        (
            "defaultAcion: allow\n",
            "p:1:1: no policy here: expected networkPolicy, or defaultAction, mode and egress; {} denies everything"
        ),
        (
            "network_policy:\n  egress: []\n",
            "p:1:1: no policy here: expected networkPolicy, or defaultAction, mode and egress; {} denies everything"
        ),
        (#"{"networkPolicy": []}"#, "p:1:19: networkPolicy: expected a mapping, found a list"),
        (
            "networkPolicy: {}\negress: []\n",
            "p:2:1: egress: stands beside networkPolicy, where it has no effect: move it inside"
        ),
        // The policy.
        (
            "networkPolicy:\n  defaultAcion: deny\n",
            "p:2:3: networkPolicy.defaultAcion: unknown key: expected one of defaultAction, mode, egress, setup; did you mean defaultAction?"
        ),
        ("defaultAction: maybe\n", "p:1:16: defaultAction: expected allow or deny, found maybe"),
        ("defaultAction: [deny]\n", "p:1:16: defaultAction: expected allow or deny, found a list"),
        (#"{"defaultAction": true}"#, "p:1:19: defaultAction: expected allow or deny, found true"),
        ("mode: audit\n", "p:1:7: mode: expected enforce or report, found audit"),
        ("egress: {}\n", "p:1:9: egress: expected a list of rules, found a mapping"),
        (
            "defaultAction: deny\ndefault_action: allow\n",
            "p:2:1: default_action: defaultAction and default_action are the same key"
        ),
        (#"{"egress": [], "egress": []}"#, "p:1:16: egress: duplicate key"),
        (#"{"networkPolicy": {}, "networkPolicy": {}}"#, "p:1:23: networkPolicy: duplicate key"),
        // Rules.
        ("egress: [allow]\n", "p:1:10: egress[0]: expected a mapping, found allow"),
        ("egress: [{action: allow}]\n", "p:1:10: egress[0].target: missing"),
        ("egress: [{target: a}]\n", "p:1:10: egress[0].action: missing"),
        (
            "networkPolicy:\n  egress:\n    - {action: allow, target: a}\n    - action: permit\n      target: b\n",
            "p:4:15: networkPolicy.egress[1].action: expected allow or deny, found permit"
        ),
        ("egress: [{action: , target: a}]", "p:1:19: egress[0].action: expected allow or deny, found nothing"),
        (
            "egress: [{action: allow, taget: a, target: a}]",
            "p:1:26: egress[0].taget: unknown key: expected one of action, target, ports, protocol, expiresAt, ttl, comment; did you mean target?"
        ),
        (
            #"{"egress": [{"action": "allow", "target": "a", "action": "deny"}]}"#,
            "p:1:48: egress[0].action: duplicate key"
        ),
        ("egress: [{action: allow, target: }]", "p:1:34: egress[0].target: expected a string, found nothing"),
        (#"{"egress": [{"action": "allow", "target": 7}]}"#, "p:1:43: egress[0].target: expected a string, found 7"),
        (
            "egress: [{action: allow, target: \"*\"}]",
            "p:1:34: egress[0].target: \"*\" is not a target: use defaultAction: allow"
        ),
        (
            "egress: [{action: allow, target: 192.0.2.7/24}]",
            "p:1:34: egress[0].target: \"192.0.2.7/24\" has bits set after the prefix length: write 192.0.2.0/24"
        ),
        (
            "egress: [{action: allow, target: bücher.example}]",
            "p:1:34: egress[0].target: \"bücher.example\" is not ASCII: write its punycode form \"xn--bcher-kva.example\""
        ),
        (
            "egress: [{action: allow, target: a, protocol: icmp}]",
            "p:1:47: egress[0].protocol: expected tcp, udp or any, found icmp"
        ),
        (
            "egress: [{action: allow, target: a, ports: 443}]",
            "p:1:44: egress[0].ports: expected a list of ports, as in [443, \"8000-8100\"], found 443"
        ),
        (
            "egress: [{action: allow, target: a, ports: []}]",
            "p:1:44: egress[0].ports: an empty list: leave ports out to mean every port"
        ),
        (
            "egress: [{action: allow, target: a, comment: [x]}]",
            "p:1:46: egress[0].comment: expected a string, found a list"
        ),
        (
            "egress: [{action: allow, target: a, ttl: 10}]",
            "p:1:42: egress[0].ttl: expected a duration such as 30s, 10m, 1h or 2d, found 10"
        ),
        (
            "egress: [{action: allow, target: a, ttl: 10m, expiresAt: 2026-12-01T00:00:00Z}]",
            "p:1:47: egress[0].expiresAt: stands beside ttl: only one of them is accepted"
        ),
    ])
    func saysWhatIsWrongAndWhere(text: String, problem: String) {
        #expect(Reading.problems(text) == [problem])
    }

    @Test(arguments: ["0", "65536", "8100-8000", "0-10", "1-", "-1", "443.0", "0443", "http", "1 - 2", "4e2"])
    func refusesOtherPorts(text: String) {
        #expect(
            Reading.problems("egress: [{action: allow, target: a, ports: [\"\(text)\"]}]") == [
                "p:1:45: egress[0].ports[0]: expected a port of 1...65535 or a range such as \"8000-8100\", found \"\(text)\""
            ]
        )
    }

    @Test(arguments: ["0s", "-1m", "10", "m", "1w", "1.5h", "1h30m", "40000d", "99999999999s", " 1s", "٣s"])
    func refusesOtherDurations(text: String) {
        #expect(
            Reading.problems("egress: [{action: allow, target: a, ttl: \"\(text)\"}]") == [
                "p:1:42: egress[0].ttl: expected a duration such as 30s, 10m, 1h or 2d, found \"\(text)\""
            ]
        )
    }

    @Test func findsAllProblemsAtOnce() {
        let text = """
            networkPolicy:
              defaultAction: no
              colour: red
              egress:
                - action: allow
                  target: "*"
                  ports: [0, 80, x]
                - target: ok.example
                - action: drop
                  target: a..b
                  ttl: soon
            """
        #expect(
            Reading.problems(text) == [
                "p:2:18: networkPolicy.defaultAction: expected allow or deny, found no",
                "p:3:3: networkPolicy.colour: unknown key: expected one of defaultAction, mode, egress, setup",
                "p:6:15: networkPolicy.egress[0].target: \"*\" is not a target: use defaultAction: allow",
                "p:7:15: networkPolicy.egress[0].ports[0]: expected a port of 1...65535 or a range such as \"8000-8100\", found 0",
                "p:7:22: networkPolicy.egress[0].ports[2]: expected a port of 1...65535 or a range such as \"8000-8100\", found x",
                "p:8:7: networkPolicy.egress[1].action: missing",
                "p:9:15: networkPolicy.egress[2].action: expected allow or deny, found drop",
                "p:10:15: networkPolicy.egress[2].target: \"a..b\" is not a name: it has an empty label",
                "p:11:12: networkPolicy.egress[2].ttl: expected a duration such as 30s, 10m, 1h or 2d, found soon",
            ]
        )
    }

    // MARK: Limits

    @Test func refusesWhatIsTooLarge() {
        let bytes = String(repeating: " ", count: 4 * 1024 * 1024 + 1)
        #expect(Reading.problems(bytes) == ["p:1:1: 4194305 bytes: at most 4194304 are accepted"])
        let deep = String(repeating: "[", count: 33) + String(repeating: "]", count: 33)
        #expect(Reading.problems(deep, .json) == ["p:1:33: nested deeper than 32 levels"])
        #expect(Reading.problems(deep, .yaml) == ["p:1:33: nested deeper than 32 levels"])
        for opening in ["[", "- ", "{a: ", "? "] {
            #expect(Reading.problems(String(repeating: opening, count: 100_000), .yaml).count == 1)
        }
        let rules = "{\"egress\":[" + String(repeating: "0,", count: 100_000) + "0]}"
        #expect(Reading.problems(rules) == ["p:1:11: egress: 100001 rules: at most 100000 are accepted"])
    }

    @Test func refusesWhatIsNotUTF8() {
        let error = #expect(throws: DocumentError.self) {
            _ = try PolicyDocument.load(bytes: [0x7b, 0xff, 0x7d], format: .automatic, file: "p", now: Reading.now)
        }
        #expect(error?.description == "p:1:1: not UTF-8")
    }

    @Test func readsAsManyRulesAsAreAccepted() throws {
        let rules = (0..<40_000).map { "{action: allow, target: h\($0).example, ports: [443]}" }
        let policy = try Reading.load("egress: [" + rules.joined(separator: ", ") + "]").policy
        #expect(policy.rules.count == 40_000)
    }
}
