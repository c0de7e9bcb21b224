import EgressPolicy
import NetPrimitives
import Testing

@Suite struct RuleShadowTests {
    /// `1<0`: rule 1 is covered by rule 0; `=` a duplicate; with the remainder behind it.
    private func shadows(_ rules: String...) -> [String] {
        CompiledPolicy(Policy(rules: rules.map { Sample.rule($0) })).shadows().map { shadow in
            let remainder = shadow.remainder.map { " \($0)" } ?? ""
            return "\(shadow.index)\(shadow.isDuplicate ? "=" : "<")\(shadow.coveredBy)\(remainder)"
        }
    }

    @Test func aRuleBehindABroaderOne() {
        #expect(shadows("allow *.example.com", "deny api.example.com tcp") == ["1<0"])
        #expect(shadows("allow *.example.com", "deny api.example.com") == ["1<0 datagrams"])
        #expect(shadows("allow *.example.com", "deny api.example.com any") == [])
        #expect(shadows("allow *.example.com 443", "deny api.example.com") == [])
        #expect(shadows("deny *.example.com", "allow api.example.com 443") == ["1<0"])
        #expect(shadows("deny *.example.com 443", "allow api.example.com") == [])
        #expect(shadows("deny *.example.com tcp", "allow api.example.com") == ["1<0"])
        #expect(shadows("deny *.example.com tcp", "allow api.example.com 443 any") == [])
        #expect(
            shadows("allow *.example.com", "allow *.a.example.com", "deny api-*.example.com tcp") == ["1<0", "2<0"]
        )
        #expect(
            shadows("allow a*.example.com", "deny api-*.example.com tcp", "deny api.example.com tcp")
                == ["1<0", "2<0"]
        )
        #expect(shadows("allow *.example.com", "allow example.com") == [])
        #expect(shadows("deny 192.0.2.0/24", "allow 192.0.2.7", "allow 198.51.100.7") == ["1<0"])
    }

    @Test func theSameTwice() {
        #expect(shadows("allow a.example 443,80", "allow other.example", "allow a.example 80,443") == ["2=0"])
        #expect(shadows("deny a.example", "deny a.example udp") == ["1<0"])
    }

    /// A broad rule opens no guard range, so that what stands behind it may: and may be kept from it by a denial.
    @Test func whatOpensOrClosesAGuardRangeDecides() {
        #expect(shadows("allow 0.0.0.0/0", "allow 10.0.0.0/8") == [])
        #expect(shadows("allow 10.0.0.0/8", "allow 10.1.0.0/16") == ["1<0"])
        // The denial decides: it keeps what stands behind it from opening the range.
        #expect(shadows("allow 0.0.0.0/0", "deny 10.0.0.0/8", "allow 10.1.2.3") == ["2<1"])
        #expect(shadows("allow 0.0.0.0/0", "deny 203.0.113.0/24") == ["1<0"])
    }

    @Test func whatStillDependsOnARuleIsTold() {
        #expect(shadows("allow *.example.com", "allow api.example.com") == ["1<0 nameBudget"])
        #expect(shadows("allow 203.0.113.0/24", "allow 203.0.113.7") == ["1<0 nodeAddress"])
    }

    /// While a rule about addresses allows, names resolve that would not.
    @Test func anAllowanceOfAddressesBehindADenialOfAllOfThem() {
        #expect(shadows("deny 0.0.0.0/0", "deny ::/0", "allow 203.0.113.7", "allow a.example") == [])
    }

    @Test func aRuleThatExpiresEarlierCoversNothingForEver() {
        let first = Sample.rule("allow *.example.com", expiresAt: Sample.now)
        let second = Sample.rule("deny api.example.com")
        #expect(CompiledPolicy(Policy(rules: [first, second])).shadows().isEmpty)
        #expect(CompiledPolicy(Policy(rules: [Sample.rule("allow *.example.com"), second])).shadows().count == 1)
    }

    /// Without the rule, no flow and no query is decided otherwise, at any time, by any other rule.
    @Test(arguments: 0..<8) func removingOneChangesNoVerdict(part: Int) {
        var random = SplitMix(state: UInt64(part) &* 15_485_863 &+ 5)
        var tried = 0
        for _ in 0..<700 {
            let sample = RandomPolicy(&random)
            for shadow in sample.compiled.shadows().prefix(4) {
                // A node whose own address it is has a use for the rule.
                if shadow.remainder == .nodeAddress, !sample.nodeAddresses.isEmpty { continue }
                tried += 1
                var less = sample.policy
                let own = less.rules.count
                if shadow.index < own {
                    less.rules.remove(at: shadow.index)
                } else {
                    less.setup!.rules.remove(at: shadow.index - own)
                }
                let without = CompiledPolicy(less, always: sample.always, nodeAddresses: sample.nodeAddresses)
                check(sample, without, shadow, &random)
            }
        }
        #expect(tried > 200)
    }

    private func check(
        _ sample: RandomPolicy,
        _ without: CompiledPolicy,
        _ shadow: RuleShadow,
        _ random: inout SplitMix
    ) {
        let times = [-6, -1, 0, 1, 6].map { Sample.now.advanced(bySeconds: $0) }
        let (ports, addresses) = (sample.boundaryPorts, sample.boundaryAddresses)
        for _ in 0..<60 {
            let flow = Flow(
                name: Bool.random(using: &random) ? nil : RandomPolicy.names.randomElement(using: &random),
                address: Int.random(in: 0..<4, using: &random) == 0 ? nil : addresses.randomElement(using: &random),
                port: ports.randomElement(using: &random)!,
                transport: TransportProtocol.allCases.randomElement(using: &random)!
            )
            if shadow.remainder == .datagrams, flow.transport == .udp { continue }
            let time = times.randomElement(using: &random)!
            var (old, new) = (sample.compiled.decide(flow, at: time), without.decide(flow, at: time))
            let own = sample.policy.rules.count
            let (source, index): (RuleReference.Source, Int) =
                shadow.index < own ? (.policy, shadow.index) : (.setup, shadow.index - own)
            let decides = old.rule?.source == source && old.rule?.index == index
            #expect(!decides, "\(shadow) decides \(flow) under \(sample.policy) \(sample.always)")
            if let rule = new.rule, rule.source == source, rule.index >= index { new.rule!.index += 1 }
            #expect(old == new, "\(shadow), \(flow) under \(sample.policy) \(sample.always)")
            (old.rule, new.rule) = (nil, nil)
        }
        // A name resolves for datagrams alone, too.
        for name in RandomPolicy.names where shadow.remainder != .datagrams {
            let time = times.randomElement(using: &random)!
            let (old, new) = (sample.compiled.decideQuery(name, at: time), without.decideQuery(name, at: time))
            #expect((old == .allow) == (new == .allow), "\(shadow), \(name) under \(sample.policy) \(sample.always)")
        }
    }
}
