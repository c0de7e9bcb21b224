import EgressPolicy
import NetPrimitives
import PolicyDocument
import Testing

@Suite struct PolicyLintTests {
    private static let now = WallTime(microseconds: 1_700_000_000_000_000)

    /// `LINE:COLUMN SEVERITY CODE` of each finding.
    private func lint(_ text: String, matched: Set<Int>? = nil) throws -> [String] {
        let document = try PolicyDocument.load(bytes: Array(text.utf8), format: .yaml, file: "p", now: Self.now)
        return document.lint(at: Self.now, expiringWithin: 86400, matched: matched).map {
            "\($0.place.line):\($0.place.column) \($0.severity.rawValue) \($0.code.rawValue)"
        }
    }

    @Test(arguments: [
        ("{action: allow, target: a.example, ports: [443]}", []),
        ("{action: deny, target: 0.0.0.0/0, ports: ['1-65535']}", []),
        ("{action: allow, target: '*.co.uk'}", ["warning public-suffix"]),
        ("{action: allow, target: '::/0'}", ["warning whole-internet"]),
        ("{action: allow, target: 192.0.0.0/3}", ["warning broad-addresses", "warning guard-range-closed"]),
        ("{action: allow, target: 10.0.0.0/8}", ["note opens-guard-range"]),
        ("{action: allow, target: 169.254.0.0/16}", ["warning opens-guard-range"]),
        ("{action: allow, target: a.example, ports: ['1-2000']}", ["warning wide-ports"]),
        ("{action: allow, target: a.example, protocol: udp}", ["warning no-effect"]),
        ("{action: allow, target: a.example, ttl: 1h}", ["note expires-soon"]),
        ("{action: allow, target: a.example, ttl: 10d}", []),
        ("{action: allow, target: a.example, expiresAt: 2020-01-01T00:00:00Z}", ["warning expired-rule"]),
    ])
    func aRule(_ rule: String, _ expected: [String]) throws {
        #expect(try lint("egress:\n  - \(rule)\n") == expected.map { "2:5 " + $0 })
    }

    @Test func theWhole() throws {
        #expect(
            try lint("# x\ndefaultAction: allow\nmode: report\n") == [
                "2:1 warning default-allow", "2:1 note report-mode",
            ]
        )
    }

    @Test func rulesThatSeveralCoverTogether() throws {
        func findings(_ rules: [String]) throws -> [LintFinding] {
            let text = "egress:\n" + rules.map { "- \($0)\n" }.joined()
            let document = try PolicyDocument.load(bytes: Array(text.utf8), format: .yaml, file: "p", now: Self.now)
            return document.lint(at: Self.now, expiringWithin: 86400)
        }
        let halves = ["{action: deny, target: 203.0.113.0/25}", "{action: deny, target: 203.0.113.128/25}"]
        let contrary = try findings(halves + ["{action: allow, target: 203.0.113.0/24}"])
        #expect(contrary.map(\.severity) == [.error])
        #expect(contrary.map(\.coveredBy) == [["egress[0]", "egress[1]"]])
        #expect(
            contrary.first?.message
                == "allow 203.0.113.0/24 never decides: egress[0] (deny 203.0.113.0/25, line 2) and egress[1] "
                + "(deny 203.0.113.128/25, line 3) stand before it and together cover it"
        )
        #expect(contrary.first?.advice == "move it before those rules if it is meant to hold, else remove it")
        // An exception with what else there is: no contradiction.
        let mixed = try findings([
            halves[0], "{action: allow, target: 203.0.113.128/25}", "{action: allow, target: 203.0.113.0/24}",
        ])
        #expect(mixed.map(\.severity) == [.warning])
        // Of many, the message names the first.
        let many = try findings(
            (80...87).map { "{action: allow, target: a.example, ports: [\($0)]}" }
                + ["{action: allow, target: a.example, ports: [80-87]}"]
        )
        #expect(many.map(\.coveredBy.count) == [8])
        #expect(
            many.first?.message.contains("egress[3] (allow a.example, line 5) and 4 others stand before it") ?? false
        )
    }

    @Test func rulesThatStandBehindOthers() throws {
        let text = """
            egress:
            - {action: allow, target: "*.a.example"}
            - {action: deny, target: b.a.example}
            - {action: allow, target: "*.b.a.example"}
            - {action: allow, target: "*.a.example"}
            - {action: allow, target: c.a.example}
            - {action: deny, target: d.a.example, expiresAt: 2020-01-01T00:00:00Z}
            """
        let found = [
            "3:3 error shadowed-rule", "4:3 warning shadowed-rule", "5:3 warning duplicate-rule",
            "6:3 note covered-rule",
            "7:3 warning expired-rule",
        ]
        #expect(try lint(text) == found)
        // What never decides is not told to match nothing as well.
        #expect(
            try lint(text, matched: []) == ["2:3 note unmatched-rule"] + found[..<4] + ["6:3 note unmatched-rule"]
                + found[4...]
        )
    }
}
