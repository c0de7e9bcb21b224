import EgressPolicy
import NetPrimitives
import Testing

@Suite struct RuleShadowTests {
    /// `1<0`: rule 1 is covered by rule 0, `2<0+1`: by both together; `=` a duplicate; with the remainder behind it.
    private func shadows(_ rules: String...) -> [String] {
        CompiledPolicy(Policy(rules: rules.map { Sample.rule($0) })).shadows().map { shadow in
            let remainder = shadow.remainder.map { " \($0)" } ?? ""
            let covers = shadow.coveredBy.map { "\($0)" }.joined(separator: "+")
            return "\(shadow.index)\(shadow.isDuplicate ? "=" : "<")\(covers)\(remainder)"
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

    @Test func severalBlocksTogether() {
        #expect(shadows("allow 203.0.113.0/25", "allow 203.0.113.128/25", "allow 203.0.113.0/24") == ["2<0+1"])
        #expect(shadows("deny 203.0.113.0/25", "deny 203.0.113.128/25", "allow 203.0.113.0/24") == ["2<0+1"])
        #expect(shadows("allow 203.0.113.0/25", "allow 203.0.113.128/26", "allow 203.0.113.0/24") == [])
        #expect(
            shadows(
                "allow 203.0.113.0/26",
                "allow 203.0.113.64/26",
                "deny 203.0.113.128/25 any",
                "deny 203.0.113.0/24 udp"
            )
                == ["3<0+1+2"]
        )
        #expect(
            shadows("allow 2001:db8::/33 443", "allow 2001:db8:8000::/33", "allow 2001:db8::/32 443") == ["2<0+1"]
        )
        #expect(shadows("allow 0.0.0.0/1", "allow 128.0.0.0/1", "allow 0.0.0.0/0") == ["2<0+1"])
        // Either family alone leaves the other.
        #expect(shadows("deny 0.0.0.0/0", "deny ::/1", "deny ::/0") == [])
        // A guard range stays closed behind them all: the narrower rule opens it.
        #expect(shadows("allow 0.0.0.0/1", "allow 128.0.0.0/1", "allow 10.0.0.0/8") == [])
        // All addresses of both families are not all names.
        #expect(shadows("deny 0.0.0.0/0", "deny ::/0", "deny a.example") == [])
    }

    @Test func severalPortsAndProtocolsTogether() {
        #expect(shadows("allow a.example 80", "allow a.example 443", "allow a.example 80,443") == ["2<0+1"])
        #expect(shadows("allow a.example 80", "allow a.example 443", "allow a.example 80,444") == [])
        #expect(shadows("allow a.example 1-1023", "allow a.example 1024-65535", "allow a.example tcp") == ["2<0+1"])
        #expect(shadows("allow a.example 2-1023", "allow a.example 1024-65535", "allow a.example tcp") == [])
        #expect(shadows("deny a.example tcp", "deny a.example udp", "allow a.example 443 any") == ["2<0+1"])
        #expect(
            shadows("allow a.example 443 tcp", "allow a.example 443 udp", "allow a.example 443 any") == ["2<0+1"]
        )
        #expect(shadows("allow a.example 1-65535", "allow a.example tcp") == ["1<0"])
        // Blocks and ports: each half has another rule for one of the ports.
        #expect(
            shadows(
                "allow 203.0.113.0/24 80",
                "allow 203.0.113.0/25",
                "allow 203.0.113.128/25 443",
                "allow 203.0.113.0/24 80,443"
            ) == ["3<0+1+2"]
        )
        #expect(
            shadows(
                "allow 203.0.113.0/24 80",
                "allow 203.0.113.0/25 443",
                "allow 203.0.113.128/25 444",
                "allow 203.0.113.0/24 80,443"
            ) == []
        )
    }

    @Test func wildcardsTogether() {
        #expect(
            shadows("allow *.example.com 80", "allow a*.example.com 443", "allow api-*.example.com 80,443") == ["2<0+1"]
        )
        #expect(shadows("allow *.example.com 80", "allow a*.example.com 443", "allow *.example.com 80,443") == [])
        #expect(
            shadows("allow *.example.com 80", "allow *.example.com 443", "allow a.example.com 80,443")
                == ["2<0+1 nameBudget"]
        )
        // The first rule keeps the name out of the budget too.
        #expect(
            shadows("allow a.example.com 80", "allow *.example.com 443", "allow a.example.com 80,443") == ["2<0+1"]
        )
    }

    @Test func onlyThoseThatAreNeededAreNamed() {
        // An exception in front is no contradiction where others say the same; else it is named with them.
        #expect(
            shadows(
                "deny a.example 25 any",
                "allow a.example 1-1023",
                "allow a.example 1024-65535",
                "allow a.example tcp"
            ) == ["3<1+2"]
        )
        #expect(
            shadows("deny a.example 25 any", "allow a.example 1-24,26-65535 tcp", "allow a.example tcp") == ["2<0+1"]
        )
        #expect(
            shadows(
                "allow a.example 443",
                "allow a.example 80-500",
                "allow a.example 501-600",
                "allow a.example 80-600"
            )
                == ["3<1+2"]
        )
        #expect(shadows("allow a.example 80", "allow a.example 443", "deny a.example 80,443") == ["2<0+1 datagrams"])
        #expect(shadows("deny a.example 80 tcp", "deny a.example 443 tcp", "deny a.example 80,443") == [])
    }

    @Test func partsThatExpireSoonerCoverNothing() {
        let rules = [
            Sample.rule("allow 203.0.113.0/25"), Sample.rule("allow 203.0.113.128/25", expiresAt: Sample.future),
            Sample.rule("allow 203.0.113.0/24"),
        ]
        #expect(CompiledPolicy(Policy(rules: rules)).shadows().isEmpty)
        let bounded = rules[..<2] + [Sample.rule("allow 203.0.113.0/24", expiresAt: Sample.future)]
        #expect(CompiledPolicy(Policy(rules: Array(bounded))).shadows().map(\.coveredBy) == [[0, 1]])
    }

    /// A block that is given address by address is found up to the bound; beyond it nothing is said, and none of it takes long.
    @Test func manyPartsAreBounded() {
        func rules(_ count: Int) -> [Rule] {
            let hosts = (0..<count).map { "allow 203.0.\(112 + $0 / 256).\($0 % 256)" }
            return (hosts + ["allow 203.0.112.0/\(count > 256 ? 23 : 24)"]).map { Sample.rule($0) }
        }
        let found = CompiledPolicy(Policy(rules: rules(256))).shadows()
        #expect(found.map(\.coveredBy.count) == [256])
        #expect(CompiledPolicy(Policy(rules: rules(255))).shadows().isEmpty)
        #expect(CompiledPolicy(Policy(rules: rules(512))).shadows().isEmpty)
    }

    /// Among public addresses a rule is told exactly when every address and port of it is one of an earlier rule.
    @Test(arguments: 0..<4) func noneIsMissedAmongAddresses(part: Int) {
        var random = SplitMix(state: UInt64(part) &* 7_919 &+ 11)
        let base = IPAddress("203.0.113.0")!
        var (covered, joint) = (0, 0)
        for _ in 0..<1500 {
            let rules = (0..<Int.random(in: 6...12, using: &random)).map { _ in
                Rule(
                    .allow,
                    .addresses(
                        IPPrefix(
                            IPAddress(family: .v4, value: base.value + UInt128.random(in: 0..<8, using: &random))!,
                            length: Int.random(in: 29...31, using: &random)
                        )
                    ),
                    ports: [[], [PortRange(80)!], [PortRange(443)!], [PortRange(80)!, PortRange(443)!]]
                        .randomElement(using: &random)!,
                    transport: [nil, .tcp, .udp].randomElement(using: &random)!
                )
            }
            let told = CompiledPolicy(Policy(rules: rules)).shadows()
            joint += told.count { $0.coveredBy.count > 1 }
            for index in rules.indices {
                let places = Self.places(base).filter { rules[index].matches($0) }
                let isCovered = places.allSatisfy { place in rules[..<index].contains { $0.matches(place) } }
                covered += isCovered ? 1 : 0
                #expect(told.contains { $0.index == index } == isCovered, "rule \(index) of \(rules)")
            }
        }
        #expect(covered > 500 && joint > 200)
    }

    private static func places(_ base: IPAddress) -> [Flow] {
        (UInt128(0)..<8).flatMap { offset in
            [80, 443, 9 as UInt16].flatMap { port in
                TransportProtocol.allCases.map { transport in
                    let address = IPAddress(family: .v4, value: base.value + offset)!
                    return Flow(name: nil, address: address, port: port, transport: transport)
                }
            }
        }
    }

    /// Targets of which some cover another together.
    private static let families = [
        ["0.0.0.0/0", "0.0.0.0/1", "128.0.0.0/1", "10.0.0.0/8", "203.0.113.0/24"],
        ["::/0", "::/1", "8000::/1", "2001:db8::/32", "64:ff9b::/96"],
        ["203.0.113.0/24", "203.0.113.128/25", "203.0.113.7", "0.0.0.0/0"],
        ["*.a.example", "api-*.a.example", "api-1.a.example", "*-x.a.example"],
    ].map { $0.map { try! Target(parsing: $0) } }

    /// Without the rule, no flow and no query is decided otherwise, at any time, by any other rule.
    @Test(arguments: 0..<8) func removingOneChangesNoVerdict(part: Int) {
        var random = SplitMix(state: UInt64(part) &* 15_485_863 &+ 5)
        var (tried, together) = (0, 0)
        for number in 0..<700 {
            let family = number % 2 == 0 ? nil : Self.families.randomElement(using: &random)
            let sample = RandomPolicy(&random, family: family)
            let shadows = sample.compiled.shadows()
            for shadow in shadows.sorted(by: { $0.coveredBy.count > $1.coveredBy.count }).prefix(4) {
                // A node whose own address it is has a use for the rule.
                if shadow.remainder == .nodeAddress, !sample.nodeAddresses.isEmpty { continue }
                tried += 1
                together += shadow.coveredBy.count > 1 ? 1 : 0
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
        #expect(tried > 200 && together > 20)
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

extension Rule {
    /// Whether it matches a flow by its address, port and protocol.
    fileprivate func matches(_ flow: Flow) -> Bool {
        guard case .addresses(let block) = target, let address = flow.address, block.contains(address) else {
            return false
        }
        return (ports.isEmpty || ports.contains { $0.contains(flow.port) })
            && (transport == nil || transport == flow.transport)
    }
}
