import NetPrimitives
import Testing

@testable import EgressPolicy

@Suite struct PolicyDifferenceTests {
    private func difference(_ old: [Rule], _ new: [Rule], default action: RuleAction = .deny) -> [String] {
        let policies = [
            CompiledPolicy(Policy(defaultAction: .deny, rules: old)),
            CompiledPolicy(Policy(defaultAction: action, rules: new)),
        ]
        let found = PolicyDifference(from: policies[0], to: policies[1], at: WallTime(microseconds: 0))
        return found.opened.map { "+ \($0)" } + found.closed.map { "- \($0)" }
    }

    private func allow(_ target: String, _ ports: PortRange..., over transport: TransportProtocol? = nil) -> Rule {
        Rule(.allow, try! Target(parsing: target), ports: ports, transport: transport)
    }

    private func deny(_ target: String) -> Rule { Rule(.deny, try! Target(parsing: target)) }

    @Test func whatMovedWithoutEffectIsNoDifference() {
        let rules = [allow("a.example"), allow("*.b.example", PortRange(443)!), allow("192.0.2.0/24")]
        #expect(difference(rules, rules.reversed()).isEmpty)
        #expect(difference(rules, rules + [allow("a.example", PortRange(80)!), deny("192.0.2.7")]).isEmpty)
    }

    @Test func namesAndPorts() {
        let web = [allow("a.example", PortRange(80)!, PortRange(443)!)]
        #expect(difference([], web) == ["+ tcp 80, 443 a.example"])
        #expect(difference(web, [allow("a.example", PortRange(443)!)]) == ["- tcp 80 a.example"])
        #expect(difference(web, [allow("a.example")]) == ["+ tcp 1-79, 81-442, 444-65535 a.example"])
        #expect(difference([], [allow("a.example", PortRange(53)!, over: .udp)]) == ["+ udp 53 a.example"])
    }

    @Test func exceptionsFromAWildcard() {
        let old = [allow("*.a.example")]
        let new = [deny("secret.a.example"), allow("*.a.example")]
        #expect(difference(old, new) == ["- tcp any port secret.a.example"])
        #expect(difference([], old) == ["+ tcp any port *.a.example"])
        #expect(difference(old, [allow("api-*.a.example")]) == ["- tcp any port *.a.example"])
    }

    @Test func addressesAreShownAsBlocks() {
        let old = [allow("198.51.100.0/24", over: .tcp)]
        #expect(difference([], old) == ["+ tcp any port 198.51.100.0/24"])
        #expect(difference(old, [deny("198.51.100.7")] + old) == ["- tcp any port 198.51.100.7"])
        let halves = [allow("198.51.100.0/25", over: .tcp), allow("198.51.100.128/25", over: .tcp)]
        #expect(difference(old, halves).isEmpty)
        #expect(
            difference([], [allow("2001:db8::/32", PortRange(443)!)])
                == ["+ tcp 443 2001:db8::/32", "+ udp 443 2001:db8::/32"]
        )
    }

    @Test func theDefaultConcernsWhatNoTargetSpeaksOf() {
        let found = difference([allow("a.example")], [deny("a.example")], default: .allow)
        #expect(found.contains("+ tcp any port every other name"))
        #expect(found.contains("- tcp any port a.example"))
        #expect(found.contains { $0.hasPrefix("+ tcp any port 1.0.0.0") })
        #expect(!found.contains { $0.contains(" 10.0.0.0") })
    }

    /// Held against `decide` on random policies: for every name and address that a rule speaks of, on every port, what
    /// differs is told, and nothing else.
    @Test func nothingIsMissedAndNothingMadeUp() {
        let time = WallTime(microseconds: 0)
        var random = SplitMix(state: 7)
        for _ in 0..<60 {
            let (old, new) = (RandomPolicy(&random).compiled, RandomPolicy(&random).compiled)
            let found = PolicyDifference(from: old, to: new, at: time)
            func isTold(_ entries: [PolicyDifference.Entry], _ flow: Flow) -> Bool {
                entries.contains { entry in
                    guard entry.transport == flow.transport, entry.ports.contains(where: { $0.contains(flow.port) })
                    else { return false }
                    switch (entry.subject, flow.name, flow.address) {
                    case (.names(.name(let name)), let wanted?, nil): return name == wanted
                    case (.addresses(let range), nil, let wanted?):
                        return range.lowerBound.family == wanted.family && range.contains(wanted)
                    default: return false
                    }
                }
            }
            let targets = (old.policy.rules + new.policy.rules).map(\.target)
            for target in targets {
                for port: UInt16 in [1, 80, 442, 443, 500, 1_024] {
                    for transport in TransportProtocol.allCases {
                        var flow = Flow(name: nil, address: nil, port: port, transport: transport)
                        switch target {
                        case .name(let name): flow.name = name
                        case .addresses(let prefix): flow.address = prefix.first
                        default: continue
                        }
                        let verdicts = (old.decide(flow, at: time).action, new.decide(flow, at: time).action)
                        #expect(isTold(found.opened, flow) == (verdicts == (.deny, .allow)), "\(flow)")
                        #expect(isTold(found.closed, flow) == (verdicts == (.allow, .deny)), "\(flow)")
                    }
                }
            }
        }
    }
}
