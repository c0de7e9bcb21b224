import EgressPolicy
import NetPrimitives
import Testing

/// Set-up rules, and what a lock leaves.
@Suite struct SetupPhaseTests {
    @Test func itsRulesStandBehindAllOthers() {
        let policy = Sample.policy(
            "deny b.example",
            "allow a.example 443",
            setup: ["allow a.example", "allow b.example", "allow c.example"],
            always: AlwaysRules(deny: [Sample.rule("allow d.example")])
        )
        #expect(policy.words(Sample.flow("a.example")) == "allow rule 1")
        #expect(policy.words(Sample.flow("a.example", nil, 80)) == "allow rule setup 0")
        #expect(policy.words(Sample.flow("b.example")) == "deny rule 0")
        #expect(policy.words(Sample.flow("c.example")) == "allow rule setup 2")
        #expect(policy.words(Sample.flow("d.example")) == "deny rule deny.always 0")
        #expect(policy.query("c.example") == "allow")
    }

    @Test func aLockLeavesTheRest() {
        let before = Sample.policy("allow a.example", setup: ["allow b.example", "allow 10.0.0.0/8"])
        let policy = before.locked(generation: 9)
        #expect(policy.policy == Policy(rules: [Sample.rule("allow a.example")]))
        #expect(policy.generation == 9)
        #expect(policy.words(Sample.flow("a.example")) == "allow rule 0")
        #expect(policy.words(Sample.flow("b.example")) == "deny default")
        #expect(policy.query("b.example") == "deny default")
        #expect(policy.words(Sample.flow(nil, "10.0.0.1")) == "deny guard-range")
    }

    @Test func itIsOverByItself() {
        let policy = Sample.policy("allow a.example", setup: ["allow b.example"])
        #expect(policy.nextExpiry(after: Sample.now) == Sample.future)
        #expect(policy.words(Sample.flow("b.example"), at: Sample.future) == "deny expired-rule setup 0")
        #expect(policy.words(Sample.flow("a.example"), at: Sample.future) == "allow rule 0")
        #expect(policy.possibleAddresses(at: Sample.future).isEmpty)
        #expect(policy.policy.hasSetupEnded(at: Sample.future) && !policy.policy.hasSetupEnded(at: Sample.now))
    }

    @Test func aRuleOfItMayEndBeforeIt() {
        let soon = Sample.now.advanced(bySeconds: 10)
        let phase = SetupPhase(rules: [Sample.rule("allow b.example", expiresAt: soon)], endsAt: Sample.future)
        let policy = CompiledPolicy(Policy(setup: phase))
        #expect(policy.words(Sample.flow("b.example")) == "allow rule setup 0")
        #expect(policy.words(Sample.flow("b.example"), at: soon) == "deny expired-rule setup 0")
    }

    @Test func aTraceSaysWhereARuleStands() throws {
        let policy = Sample.policy("allow a.example", setup: ["allow b.example", "allow c.example"])
        let trace = policy.trace(Sample.flow("c.example"), at: Sample.now)
        #expect(trace.map(\.rule.source) == [.policy, .setup, .setup])
        #expect(trace.map(\.outcome) == [.target, .target, .decides])
    }

    @Test func aDifferenceSaysWhenItIsOne() {
        let old = Sample.policy("allow a.example", setup: ["allow b.example"])
        let new = Sample.policy("allow a.example", "allow b.example", setup: ["allow c.example 443 tcp"])
        let difference = PhasedDifference(from: old, to: new, at: Sample.now)
        #expect(
            difference.opened.map(\.description) == [
                "tcp 443 c.example (until the lock)", "tcp any port b.example (after the lock)",
            ]
        )
        #expect(difference.closed.isEmpty)
        #expect(difference.stopsAtLock.map(\.description) == ["tcp 443 c.example"])
        let back = PhasedDifference(from: new, to: old, at: Sample.now)
        #expect(back.stopsAtLock.map(\.description) == ["tcp any port b.example"])
        let plain = PhasedDifference(from: Sample.policy("allow a.example"), to: Sample.policy(), at: Sample.now)
        #expect(plain.closed.map(\.description) == ["tcp any port a.example"] && plain.stopsAtLock.isEmpty)
    }

    /// On random policies: what is allowed after a lock is allowed before it, by the same rule and therefore under the
    /// same conditions; and neither the kernel nor the resolver lets anything more through.
    @Test(arguments: 0..<8) func aLockOnlyNarrows(part: Int) {
        var random = SplitMix(state: UInt64(part) &* 15_485_863 &+ 5)
        var narrowed = 0
        for _ in 0..<300 {
            let sample = RandomPolicy(&random)
            guard sample.policy.setup != nil else { continue }
            let (before, after) = (sample.compiled, sample.compiled.locked())
            let (ports, addresses) = (sample.boundaryPorts, sample.boundaryAddresses)
            for _ in 0..<60 {
                let flow = Flow(
                    name: Bool.random(using: &random) ? nil : RandomPolicy.names.randomElement(using: &random),
                    address: addresses.randomElement(using: &random),
                    port: ports.randomElement(using: &random)!,
                    transport: TransportProtocol.allCases.randomElement(using: &random)!
                )
                let (old, new) = (before.decide(flow, at: Sample.now), after.decide(flow, at: Sample.now))
                if new.action == .allow, !new.isReportOnly {
                    #expect(old == new, "\(flow) under \(sample.policy) \(sample.always)")
                } else if old.action == .allow, !old.isReportOnly {
                    narrowed += 1
                }
            }
            checkReach(from: before, to: after, addresses, "\(sample.policy) \(sample.always)")
        }
        #expect(narrowed > 100, "locks that take nothing away prove nothing")
    }

    private func checkReach(
        from before: CompiledPolicy,
        to after: CompiledPolicy,
        _ addresses: [IPAddress],
        _ comment: String
    ) {
        let (old, new) = (before.datagramReach(at: Sample.now), after.datagramReach(at: Sample.now))
        let (wide, narrow) = (before.possibleAddresses(at: Sample.now), after.possibleAddresses(at: Sample.now))
        for address in addresses {
            if narrow.contains(where: { $0.contains(address) }) {
                #expect(wide.contains { $0.contains(address) }, "\(address) under \(comment)")
            }
            if new.addresses.contains(where: { $0.contains(address) }) {
                #expect(old.addresses.contains { $0.contains(address) }, "\(address) under \(comment)")
            }
            if after.mayUse(address, at: Sample.now) {
                #expect(before.mayUse(address, at: Sample.now), "\(address) under \(comment)")
            }
        }
        for name in RandomPolicy.names where after.decideQuery(name, at: Sample.now) == .allow {
            #expect(before.decideQuery(name, at: Sample.now) == .allow, "\(name) under \(comment)")
            for ports in after.udpPorts(for: name, at: Sample.now) {
                #expect(
                    before.udpPorts(for: name, at: Sample.now).contains {
                        $0.contains(ports.lower) && $0.contains(ports.upper)
                    },
                    "\(name) under \(comment)"
                )
            }
        }
    }
}
