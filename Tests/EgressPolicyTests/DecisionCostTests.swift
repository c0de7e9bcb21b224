import NetPrimitives
import Testing

@testable import EgressPolicy

/// What a decision looks at does not grow with the policy. Counted, not timed.
@Suite struct DecisionCostTests {
    private func work(_ policy: CompiledPolicy, _ flows: [Flow]) -> [Int] {
        flows.map { flow in
            var work = 0
            _ = policy.decide(flow, at: Sample.now, work: &work)
            return work
        }
    }

    private func mixed(_ count: Int) -> CompiledPolicy {
        var rules: [Rule] = []
        for index in 0..<(count / 5) {
            rules.append(Rule(.allow, try! Target(parsing: "host\(index).example.com")))
            rules.append(Rule(.allow, try! Target(parsing: "*.zone\(index).example")))
            rules.append(Rule(.deny, try! Target(parsing: "api\(index)-*.pattern.example")))
            let network = IPAddress(v4: 0xcb00_0000 + UInt32(index) * 256)
            rules.append(Rule(.allow, .addresses(IPPrefix(network, length: 24))))
            let network6 = IPAddress(v6: 0x2001_0db8 << 96 + UInt128(index) << 64)
            rules.append(Rule(.deny, .addresses(IPPrefix(network6, length: 64)), ports: [PortRange(443)!]))
        }
        return CompiledPolicy(Policy(rules: rules))
    }

    @Test func isTheSameForTenAndAHundredThousandRules() {
        let flows = [
            Sample.flow("host1.example.com", "203.0.0.1"), Sample.flow("a.b.zone0.example", "203.0.1.1"),
            Sample.flow("api1-x.pattern.example", "198.51.100.1"), Sample.flow("api7x.pattern.example", "2001:db8::1"),
            Sample.flow("nothing.invalid", "2001:db8:0:1::1"), Sample.flow(nil, "198.51.100.7", 53, .udp),
        ]
        let few = work(mixed(10), flows)
        let many = work(mixed(100_000), flows)
        #expect(few == many)
        #expect(many.allSatisfy { $0 < 64 })
    }

    @Test func isBoundedForManyRulesWithOneTarget() throws {
        for target in ["a.example", "*.example", "203.0.113.0/24"].map({ try! Target(parsing: $0) }) {
            let rules = (0..<60_000).map { (index: Int) -> Rule in
                let expiry = index % 3 == 0 ? Sample.future.advanced(bySeconds: Int64(index)) : nil
                let port = PortRange(UInt16(index + 1))!
                return Rule(index % 2 == 0 ? .allow : .deny, target, ports: [port], expiresAt: expiry)
            }
            let policy = CompiledPolicy(Policy(rules: rules))
            let flow = Sample.flow("a.example", "203.0.113.5", 50_001)
            #expect(policy.words(flow) == "allow rule 50000")
            #expect(work(policy, [flow])[0] < 64)
        }
    }

    @Test func isBoundedForManyExpiriesOfOneRule() {
        let rules = (0..<50_000).map { index in
            Sample.rule("allow a.example", expiresAt: Sample.now.advanced(bySeconds: Int64(index - 49_000)))
        }
        let policy = CompiledPolicy(Policy(rules: rules))
        #expect(policy.words(Sample.flow("a.example")) == "allow rule 49001")
        #expect(
            policy.words(Sample.flow("a.example"), at: Sample.now.advanced(bySeconds: 1_000)) == "deny expired-rule 0"
        )
        #expect(work(policy, [Sample.flow("a.example")])[0] < 64)
    }

    @Test func isBoundedForAnyName() throws {
        let deep = Array(repeating: "a", count: 127).joined(separator: ".")
        let policy = CompiledPolicy(Policy(rules: [Rule(.allow, try Target(parsing: deep))]))
        #expect(work(policy, [Sample.flow(deep)])[0] < 160)
    }
}
