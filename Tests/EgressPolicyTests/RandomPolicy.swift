import EgressPolicy
import NetPrimitives

/// A small pseudo-random generator (SplitMix64), so that a failure can be repeated from its seed.
struct SplitMix: RandomNumberGenerator {
    var state: UInt64

    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var mixed = state
        mixed = (mixed ^ (mixed >> 30)) &* 0xbf58_476d_1ce4_e5b9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94d0_49bb_1331_11eb
        return mixed ^ (mixed >> 31)
    }
}

/// A random policy over few names, blocks and ports, so that rules overlap, and the flows that tell rules apart.
struct RandomPolicy {
    static let names = [
        "example", "a.example", "b.example", "api-1.a.example", "api-x.a.example", "x.api-1.a.example", "c.b.a.example",
        "aa.example", "other", "w.other",
    ].map { try! DomainName($0) }
    static let targets = [
        "example", "a.example", "b.example", "api-1.a.example", "w.other", "*.example", "*.a.example", "*.b.a.example",
        "*.other", "api-*.a.example", "*-x.a.example", "a*a.example", "api-*.example", "0.0.0.0/0", "::/0", "0.0.0.0/1",
        "128.0.0.0/1", "::/1", "8000::/1", "203.0.113.0/24", "203.0.113.7", "203.0.113.128/25", "10.0.0.0/8",
        "10.1.0.0/16", "10.1.2.3", "192.0.0.0/8", "192.168.0.0/16", "169.254.169.254", "2001:db8::/32", "2001:db8::7",
        "fc00::/7", "fd00::/8", "fd00::1", "::ffff:10.1.2.3", "64:ff9b::/96", "64:ff9b::203.0.113.7",
        "64:ff9b::10.0.0.0/104", "2002::/16", "2002:cb00:7100::/40", "2001::/32",
    ].map { try! Target(parsing: $0) }
    static let nodeAddresses = [IPAddress("10.1.2.3")!, IPAddress("203.0.113.9")!, IPAddress("2001:db8::9")!]
    static let ports: [[PortRange]] = [
        [], [], [], [PortRange(443)!], [PortRange(80)!, PortRange(443)!], [PortRange(1, 1023)!], [.all],
        [PortRange(442, 500)!, PortRange(400, 443)!],
    ]

    let policy: Policy
    let always: AlwaysRules
    let nodeAddresses: [IPAddress]
    let compiled: CompiledPolicy
    let reference: ReferenceEvaluator

    /// With `family`, many rules about these targets alone.
    init(_ random: inout SplitMix, family: [Target]? = nil) {
        // Now and then few targets and many rules, so that buckets grow past what is scanned.
        let isCrowded = family == nil && Int.random(in: 0..<10, using: &random) == 0
        let few = isCrowded ? (0..<2).map { _ in Self.targets.randomElement(using: &random)! } : nil
        let targets = family ?? few ?? Self.targets
        func rules(_ range: ClosedRange<Int>) -> [Rule] {
            (0..<Int.random(in: range, using: &random)).map { _ in Self.rule(targets, isCrowded, &random) }
        }
        var policy = Policy(
            defaultAction: Int.random(in: 0..<3, using: &random) == 0 ? .allow : .deny,
            mode: Int.random(in: 0..<8, using: &random) == 0 ? .report : .enforce,
            rules: isCrowded ? rules(15...40) : family == nil ? rules(0...7) : rules(6...12)
        )
        if policy.defaultAction == .deny, Bool.random(using: &random) {
            var setup = SetupPhase(rules: rules(1...4), endsAt: Sample.now)
            for index in setup.rules.indices { setup.rules[index].action = .allow }
            setup.endsAt = Sample.now.advanced(bySeconds: Int64.random(in: -1...20, using: &random))
            policy.setup = setup
        }
        self.policy = policy
        let hasAlways = Bool.random(using: &random)
        always =
            hasAlways
            ? AlwaysRules(
                deny: rules(0...2),
                allow: rules(0...2),
                answers: rules(0...2).filter { !$0.target.isOfAddresses }
            ) : AlwaysRules()
        nodeAddresses = Bool.random(using: &random) ? [] : Self.nodeAddresses
        compiled = CompiledPolicy(policy, always: always, nodeAddresses: nodeAddresses)
        reference = ReferenceEvaluator(policy, always: always, nodeAddresses: nodeAddresses)
    }

    private static func rule(_ targets: [Target], _ isCrowded: Bool, _ random: inout SplitMix) -> Rule {
        var expiry: WallTime?
        if Int.random(in: 0..<(isCrowded ? 2 : 4), using: &random) == 0 {
            expiry = Sample.now.advanced(bySeconds: Int64.random(in: -5...5, using: &random))
        }
        let transport: TransportProtocol? = [nil, nil, .tcp, .udp].randomElement(using: &random)!
        return Rule(
            Bool.random(using: &random) ? .allow : .deny,
            targets.randomElement(using: &random)!,
            ports: ports.randomElement(using: &random)!,
            transport: transport,
            statesAnyTransport: transport == nil && Bool.random(using: &random),
            expiresAt: expiry
        )
    }

    var rules: [Rule] { always.deny + always.allow + policy.unphased.rules + always.answers }

    /// One port on each side of every boundary.
    var boundaryPorts: [UInt16] {
        var ports: Set<UInt16> = [1, 65535]
        for range in rules.flatMap(\.ports) {
            ports.formUnion([range.lower, range.upper, range.lower > 1 ? range.lower - 1 : 1])
            ports.insert(range.upper < 65535 ? range.upper + 1 : 65535)
        }
        return ports.sorted()
    }

    /// One address on each side of every boundary, and some to which no rule speaks.
    var boundaryAddresses: [IPAddress] {
        var addresses: Set<IPAddress> = Set(
            ["198.51.100.1", "10.200.0.1", "2001:db9::1", "64:ff9b::198.51.100.1", "9000::1"].map { IPAddress($0)! }
        )
        for rule in rules {
            guard case .addresses(let prefix) = rule.target else { continue }
            addresses.formUnion([prefix.first, prefix.last])
            if let below = IPAddress(family: prefix.family, value: prefix.first.value &- 1) { addresses.insert(below) }
            if let above = IPAddress(family: prefix.family, value: prefix.last.value &+ 1) { addresses.insert(above) }
        }
        addresses.formUnion(nodeAddresses)
        return addresses.sorted()
    }
}
