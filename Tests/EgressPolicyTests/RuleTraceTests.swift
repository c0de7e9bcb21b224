import EgressPolicy
import NetPrimitives
import Testing

@Suite struct RuleTraceTests {
    private func trace(_ policy: CompiledPolicy, _ flow: Flow) -> [RuleTrace.Outcome] {
        policy.trace(flow, at: Sample.now).map(\.outcome)
    }

    @Test func saysOfEachRuleWhy() {
        let policy = Sample.policy(
            "deny other.example",
            "allow *.example.com 80",
            "allow *.example.com udp",
            "allow 198.51.100.0/24",
            "allow api.example.com",
            "deny *.example.com"
        )
        #expect(
            trace(policy, Sample.flow("api.example.com")) == [.target, .ports, .transport, .target, .decides, .matches]
        )
        #expect(trace(policy, Sample.flow("api.example.com", nil, 80))[1...3] == [.decides, .transport, .noAddress])
        #expect(
            trace(policy, Sample.flow(nil, "198.51.100.7")) == [.noName, .noName, .noName, .decides, .noName, .noName]
        )
        #expect(trace(policy, Sample.flow("api.example.com", nil, 443, .udp))[4] == .udpNotAsked)
    }

    @Test func whatHasExpiredWouldMatch() {
        let rule = Sample.rule("allow a.example", expiresAt: Sample.past)
        let policy = CompiledPolicy(Policy(rules: [rule]))
        #expect(trace(policy, Sample.flow("a.example")) == [.expired])
    }

    /// At most one rule decides, that of the verdict; and a rule that matches stands behind it, or a guard range decided.
    @Test(arguments: 0..<4) func agreesWithTheVerdict(part: Int) {
        var random = SplitMix(state: UInt64(part) &* 32_452_843 &+ 11)
        for _ in 0..<300 {
            let sample = RandomPolicy(&random)
            let flow = Flow(
                name: RandomPolicy.names.randomElement(using: &random),
                address: sample.boundaryAddresses.randomElement(using: &random),
                port: sample.boundaryPorts.randomElement(using: &random)!,
                transport: TransportProtocol.allCases.randomElement(using: &random)!
            )
            let verdict = sample.compiled.decide(flow, at: Sample.now)
            let trace = sample.compiled.trace(flow, at: Sample.now)
            let deciding = trace.filter { $0.outcome == .decides }.map(\.rule)
            #expect(deciding == (verdict.reason == .rule ? [verdict.rule!] : []))
            // An IPv6 address is judged by the IPv4 address in it as well, and the stricter of both decides.
            guard flow.address!.embeddedIPv4.isEmpty, verdict.reason != .guardRange else { continue }
            let first = trace.first { [.decides, .matches].contains($0.outcome) }
            #expect(first?.rule == deciding.first, "\(flow) under \(sample.policy) \(sample.always)")
        }
    }
}
