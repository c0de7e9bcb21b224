import Audit
import EgressCore
import EgressPolicy
import NetPrimitives
import PolicyDocument
import Testing

/// What is offered to an operator who sees a denial.
@Suite struct RemedyTests {
    private func policy(_ rules: String, mode: Policy.Mode = .enforce, denyAlways: [Rule] = []) throws -> CompiledPolicy
    {
        let document = try PolicyDocument.loadRules(
            bytes: Array(rules.utf8),
            format: .yaml,
            file: "rules",
            now: sampleTime
        )
        return CompiledPolicy(Policy(mode: mode, rules: document.rules), always: AlwaysRules(deny: denyAlways))
    }

    private func proposal(_ event: AuditEvent, _ policy: CompiledPolicy) throws -> Remedy.Proposal {
        guard case .rule(let proposal) = Remedy(for: event, under: policy, at: sampleTime) else {
            throw Missing(remedy: "\(Remedy(for: event, under: policy, at: sampleTime))")
        }
        return proposal
    }

    private struct Missing: Error { let remedy: String }

    private func advice(_ event: AuditEvent, _ policy: CompiledPolicy) -> String? {
        guard case .advice(let text) = Remedy(for: event, under: policy, at: sampleTime) else { return nil }
        return text
    }

    private func isAllowed(_ event: AuditEvent, _ policy: CompiledPolicy) -> Bool {
        if case .allowed = Remedy(for: event, under: policy, at: sampleTime) { true } else { false }
    }

    @Test func standsBehindEveryRuleWhereNoneSpeaksOfIt() throws {
        let policy = try policy("[{action: allow, target: a.example}, {action: deny, target: 203.0.113.0/24}]")
        let found = try proposal(denied("evil.example", address: "198.51.100.1"), policy)
        #expect(PolicyDocument.yaml(of: found.rule).contains(#"target: "evil.example", ports: [443], protocol: tcp"#))
        #expect(found.index == 2 && found.refusal == nil && found.remark == nil)
    }

    @Test func standsBeforeTheRuleThatRefuses() throws {
        let policy = try policy("[{action: allow, target: a.example}, {action: deny, target: '*.ads.example'}]")
        let event = denied(
            "x.ads.example",
            reason: .rule,
            rule: try reference(.policy, 1, .init(parsing: "*.ads.example"))
        )
        let found = try proposal(event, policy)
        #expect(found.index == 1 && found.refusal?.index == 1)
    }

    @Test func isOfTheNameForAQuery() throws {
        let found = try proposal(denied("evil.example", address: nil, port: nil, layer: .dns), try policy("[]"))
        #expect("\(found.rule.target)" == "evil.example" && found.rule.ports == [PortRange(443)!])
        #expect(found.remark?.contains("port assumed") == true)
    }

    @Test func isNothingWhereThePolicyHasChanged() throws {
        let policy = try policy("[{action: allow, target: evil.example}]")
        #expect(isAllowed(denied("evil.example", address: "198.51.100.1"), policy))
        #expect(isAllowed(denied("evil.example", address: nil, port: nil, layer: .dns), policy))
    }

    @Test func isOfferedInReportModeToo() throws {
        var event = denied("evil.example", address: "198.51.100.1")
        event.verdict?.isReportOnly = true
        event.verdict?.action = .allow
        #expect(try proposal(event, try policy("[]", mode: .report)).index == 0)
    }

    @Test func isAdviceWhereNoRuleShouldHelp() throws {
        let empty = try policy("[]")
        for reason in Reason.allCases where reason != .default && reason != .rule {
            #expect(advice(denied(reason: reason), empty) == reason.advice)
        }
        // Whatever the record says of its reason: an address rule for the metadata service is nobody's second click.
        #expect(
            advice(denied(nil, address: "169.254.169.254", port: 80, layer: .ip), empty) == Reason.guardRange.advice
        )
        #expect(advice(denied("evil.example", address: "10.0.0.1"), empty) == Reason.guardRange.advice)
        #expect(advice(denied(nil, layer: .ip, transport: 1), empty)?.contains("icmp") == true)
        #expect(advice(denied("<img src=x onerror=alert(1)>", layer: .httpHost), empty) == Reason.malformedName.advice)
        #expect(advice(denied(nil, address: nil, port: nil), empty) != nil)
    }

    @Test func isAdviceAgainstTheOperatorsRules() throws {
        let rule = Rule(.deny, try Target(parsing: "*.evil.example"))
        let text = advice(denied("x.evil.example"), try policy("[]", denyAlways: [rule]))
        #expect(text?.contains("deny.always[0]") == true)
    }
}
