import EgressPolicy
import NetPrimitives
import PolicyDocument
import PolicySuggestion
import Testing

/// What is made a rule, and what is not.
@Suite struct PolicySuggesterTests {
    private func rules(_ suggested: SuggestedPolicy) -> [String] { suggested.lines.map { short($0.rule) } }

    private func kinds(_ suggested: SuggestedPolicy) -> [String] {
        suggested.omissions.map { "\($0.kind.rawValue) \($0.destination)" }
    }

    @Test func eachNameGetsALineWithThePortsThatWereUsed() throws {
        let suggested = try suggested([
            Record(), Record(port: 80), Record(host: "API.Example.com."), Record(host: "git.example.com", port: 22),
            Record(host: "time.example.net", port: 123, transport: "udp"),
            Record(host: "old.example", isReport: false, second: 1), query("api.example.com"),
        ])
        #expect(
            rules(suggested) == [
                "api.example.com 80,443/tcp", "git.example.com 22/tcp", "old.example 443/tcp",
                "time.example.net 123/udp",
            ]
        )
        #expect(suggested.lines[0].times == 3)
        #expect(suggested.omissions.isEmpty)
    }

    @Test func whatIsDeniedNowIsAllowedThenAndNothingBeside() throws {
        let refused = { (host: String?, ip: String?, port: Int) in
            Record(event: "connection.denied", host: host, ip: ip, port: port, verdict: "deny", isReport: false)
        }
        let suggested = try suggested([
            query("index.example", verdict: "deny"), refused("db.example", nil, 5432),
            refused(nil, "203.0.113.9", 22), refused("203.0.113.10", nil, 443),
        ])
        #expect(
            rules(suggested) == [
                "db.example 5432/tcp", "index.example 443/tcp", "203.0.113.9/32 22/tcp", "203.0.113.10/32 443/tcp",
            ]
                || rules(suggested) == [
                    "db.example 5432/tcp", "index.example 443/tcp", "203.0.113.9 22/tcp", "203.0.113.10 443/tcp",
                ]
        )
        let compiled = CompiledPolicy(suggested.policy)
        func isAllowed(_ name: String?, _ address: String?, _ port: UInt16) throws -> Bool {
            let flow = Flow(
                name: try name.map { try DomainName($0) },
                address: address.flatMap { IPAddress($0) },
                port: port,
                transport: .tcp
            )
            return compiled.decide(flow, at: start).action == .allow
        }
        #expect(try isAllowed("index.example", nil, 443) && isAllowed("db.example", nil, 5432))
        #expect(try isAllowed(nil, "203.0.113.9", 22))
        #expect(try !isAllowed("index.example", nil, 80) && !isAllowed("db.example", nil, 443))
        #expect(try !isAllowed(nil, "203.0.113.9", 443) && !isAllowed("a.index.example", nil, 443))
        #expect(suggested.lines[1].remarks == ["port assumed: only the name was asked for"])
    }

    @Test func namesThatWereOnlyLookedUpAreForAPersonToDecide() throws {
        let suggested = try suggested([
            query("alias.example"), query("_http._tcp.index.example", verdict: "deny"), query("wpad", verdict: "deny"),
        ])
        #expect(suggested.lines.isEmpty)
        #expect(
            kinds(suggested) == ["lookup _http._tcp.index.example", "lookup alias.example", "lookup wpad"]
        )
    }

    @Test func guardRangesAreNeverSuggested() throws {
        let suggested = try suggested([
            Record(host: nil, ip: "169.254.169.254", port: 80, reason: "rule", isReport: false),
            Record(
                event: "connection.denied",
                host: "rebind.example",
                ip: "10.0.0.1",
                verdict: "deny",
                reason: "guard-range",
                isReport: false
            ),
            Record(host: "inner.example", ip: "::ffff:192.168.0.1"),
            Record(host: "127.0.0.1", ip: nil),
        ])
        #expect(suggested.lines.isEmpty)
        #expect(suggested.omissions.count == 4)
        #expect(suggested.omissions.allSatisfy { $0.kind == .unhelped })
        #expect(suggested.yaml(source: "x").contains("private, link-local and metadata addresses"))
    }

    @Test func whatTheBaseAllowsIsKeptAndNotRepeatedAndWhatItDeniesNotSuggested() throws {
        let base = """
            mode: report
            egress:
              - {action: deny, target: evil.example.com}
              - {action: allow, target: "*.example.com", ports: [443], comment: "ours"}
              - {action: allow, target: 10.1.0.0/16}
            """
        let suggested = try suggested(
            [
                Record(), Record(port: 8443), Record(host: "evil.example.com"), query("evil.example.com"),
                Record(host: nil, ip: "10.1.2.3", port: 5432), Record(host: "other.example"),
            ],
            base: base
        )
        #expect(rules(suggested) == ["api.example.com 8443/tcp", "other.example 443/tcp"])
        #expect(suggested.policy.rules.prefix(3) == (try policy(base)).rules[...])
        #expect(suggested.policy.mode == .enforce)
        #expect(kinds(suggested) == ["denied evil.example.com on port 443"])
        #expect(suggested.omissions[0].reason == "denied by egress[0] deny evil.example.com of base.yaml")
    }

    @Test func whatARecordedRuleDeniedIsNotSuggested() throws {
        let rule = #","rule":{"index":2,"action":"deny","target":"bad.example"}"#
        let always = #","rule":{"index":0,"action":"deny","target":"worse.example","source":"deny.always"}"#
        let records = [
            Record(host: "bad.example", reason: "rule", more: rule),
            Record(host: "worse.example", reason: "rule", more: always),
        ]
        #expect(rules(try suggested(records)).isEmpty)
        #expect(try suggested(records).omissions[0].reason == "denied by egress[2] deny bad.example")
        // A base that does not deny it is newer than the record; the operator's rules stand before every base.
        #expect(rules(try suggested(records, base: "{}")) == ["bad.example 443/tcp"])
    }

    @Test func noiseBelowTheThresholdIsLeftOutAndSaid() throws {
        let suggested = try suggested([Record(), Record(), Record(host: "rare.example")], threshold: 2)
        #expect(rules(suggested) == ["api.example.com 443/tcp"])
        #expect(kinds(suggested) == ["rare rare.example on port 443"])
        #expect(suggested.yaml(source: "x").contains("rare.example on port 443 (once): below the threshold of 2"))
    }

    @Test func quicIsLeftToItsFallback() throws {
        let both = try suggested([Record(), Record(transport: "udp")])
        #expect(rules(both) == ["api.example.com 443/tcp"])
        #expect(kinds(both) == ["alternative api.example.com on port 443, 443/udp"])
        let alone = try suggested([Record(transport: "udp")])
        #expect(rules(alone) == ["api.example.com 443/udp"])
        #expect(alone.lines[0].review.contains { $0.hasPrefix("datagrams show no name") })
    }

    @Test func addressesStandOnlyWhereNoNameLedThere() throws {
        let suggested = try suggested([
            Record(), Record(host: nil, ip: "203.0.113.7", port: 22),
            // TLS without a server name: to an address that nobody looked up, and to one that a name led to.
            Record(host: nil, ip: "203.0.113.8", reason: "no-sni"),
            Record(host: "cdn.example", ip: "203.0.113.9", reason: "no-sni"),
        ])
        #expect(rules(suggested).count == 3)
        #expect(suggested.lines[1...].allSatisfy { $0.review.contains { $0.hasPrefix("an address that no name") } })
        #expect(suggested.omissions.map(\.destination) == ["cdn.example at 203.0.113.9 on port 443"])
    }

    @Test func aScanIsNoWish() throws {
        let suggested = try suggested((1...100).map { Record(port: $0) })
        #expect(suggested.lines.isEmpty)
        #expect(suggested.omissions.map(\.kind) == [.scan])
    }

    @Test func refusalsThatHaveNothingToDoWithWhereItWentAreNotWishes() throws {
        let suggested = try suggested(
            ["paused", "unresolvable", "upstream-failed", "query-limit"].map {
                Record(event: "connection.denied", verdict: "deny", reason: $0, isReport: false)
            }
        )
        #expect(suggested.lines.isEmpty && suggested.omissions.isEmpty)
    }

    @Test func commentsSayHowOftenByWhatAndSinceWhen() throws {
        let attached = Record(
            event: "sandbox.attached",
            host: nil,
            ip: nil,
            port: nil,
            transport: nil,
            sandbox: "run-7",
            more: #","detail":"command: pip""#
        )
        let suggested = try suggested([
            attached, Record(sandbox: "run-7", second: 61), Record(sandbox: "sbx-2", second: 120),
        ])
        let text = suggested.yaml(source: "audit.jsonl")
        #expect(text.contains("    # 2 times by pip in run-7, sbx-2, first 2026-11-26T12:01:01Z\n    - {action: allow"))
    }
}
