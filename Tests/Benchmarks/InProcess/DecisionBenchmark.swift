import EgressPolicy
import NetPrimitives

/// A decision among 100,000 rules and among 10, of every kind of target, in nanoseconds of CPU time.
struct DecisionBenchmark {
    private static let decisionsPerRound = 200_000
    private static let now = WallTime(microseconds: 1_800_000_000_000_000)

    func run(_ rounds: Int) {
        let few = Self.mixed(10)
        let many = Self.mixed(100_000)
        use(Self.nanoseconds(few) + Self.nanoseconds(many))
        for _ in 0..<rounds { report(Self.nanoseconds(many), Self.nanoseconds(few)) }
    }

    private static func nanoseconds(_ policy: CompiledPolicy) -> Double {
        let flows = flows
        let (seconds, allowed) = timedOnCPU {
            var allowed = 0
            for index in 0..<decisionsPerRound
            where policy.decide(flows[index % flows.count], at: now).action == .allow {
                allowed += 1
            }
            return allowed
        }
        use(allowed)
        return seconds * 1e9 / Double(decisionsPerRound)
    }

    /// What both policies have an answer to, and what neither has.
    static var flows: [Flow] {
        [
            flow("host1.example.com", "203.0.0.1"), flow("a.b.zone0.example", "203.0.1.1"),
            flow("api1-x.pattern.example", "198.51.100.1"), flow("nothing.invalid", "2001:db8:0:1::1"),
            flow(nil, "203.0.0.9"), flow(nil, "198.51.100.7"),
        ]
    }

    private static func flow(_ name: String?, _ address: String) -> Flow {
        Flow(name: name.map { try! DomainName($0) }, address: IPAddress(address), port: 443, transport: .tcp)
    }

    private static func mixed(_ count: Int) -> CompiledPolicy { CompiledPolicy(rules(count)) }

    /// Rules of every kind of target.
    static func rules(_ count: Int) -> Policy {
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
        return Policy(rules: rules)
    }
}
