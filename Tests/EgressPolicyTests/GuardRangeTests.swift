import EgressPolicy
import NetPrimitives
import Testing

@Suite struct GuardRangeTests {
    static let guarded = [
        "0.0.0.0", "0.1.2.3", "127.0.0.1", "127.255.255.255", "169.254.0.1", "169.254.169.254", "169.254.170.2",
        "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1", "100.100.100.200", "198.18.0.1",
        "198.19.255.255", "168.63.129.16", "224.0.0.251", "239.255.255.255", "240.0.0.1", "255.255.255.255",
        "192.0.0.192", "::", "::1",
        "fe80::1", "febf::1", "fc00::1", "fd00:ec2::254", "fec0::1", "ff02::1", "64:ff9b::a83f:8110",
        // The same, inside of IPv6 addresses.
        "::ffff:127.0.0.1", "::127.0.0.1", "::ffff:0:10.0.0.1", "64:ff9b::7f00:1", "64:ff9b:1::a9fe:a9fe",
        "64:ff9b:1:2:3:4:a9fe:a9fe", "2002:7f00:1::", "2002:a9fe:a9fe::1", "2001:0:a00:1::1",
        "2001:0:cb00:7105:0:0:f5ff:fffe", "2001:db8::5efe:10.0.0.1", "2001:db8::200:5efe:192.168.0.1",
    ]
    static let free = [
        "1.1.1.1", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255", "128.0.0.0",
        "168.63.129.15", "168.63.129.17", "169.253.255.255", "169.255.0.0", "172.15.255.255", "172.32.0.0", "192.0.1.0",
        "192.167.255.255", "192.169.0.0",
        "198.17.255.255", "198.20.0.0", "203.0.113.5", "223.255.255.255", "2001:db8::1", "2606:4700::1111",
        "64:ff9b::cb00:7105", "2002:cb00:7105::1", "fbff::1",
    ]

    @Test(arguments: guarded) func isNeverUsedForAName(text: String) {
        let address = IPAddress(text)!
        for policy in [
            Sample.policy("allow a.example"), Sample.policy(defaultAction: .allow),
            Sample.policy("allow 0.0.0.0/0", "allow ::/0"), Sample.policy("allow a.example", mode: .report),
        ] {
            #expect(!policy.mayUse(address))
            #expect(policy.words(Sample.flow("a.example", text)) == "deny guard-range")
            #expect(policy.words(Sample.flow(nil, text)) == "deny guard-range")
            #expect(
                !policy.possibleAddresses(at: Sample.now).contains { $0.contains(address) } || text.hasDeepEmbedding
            )
        }
    }

    @Test(arguments: free) func isFree(text: String) {
        let policy = Sample.policy("allow a.example", defaultAction: .allow)
        #expect(policy.mayUse(IPAddress(text)!))
        #expect(policy.words(Sample.flow(nil, text)) == "allow default")
        #expect(policy.words(Sample.flow("a.example", text)) == "allow rule 0")
        #expect(policy.possibleAddresses(at: Sample.now).contains { $0.contains(IPAddress(text)!) })
    }

    @Test func aRuleInsideTheRangeOpensIt() {
        let policy = Sample.policy("allow a.example", "allow 10.1.0.0/16", "allow 192.168.0.0/15", "allow fd00::/8")
        #expect(policy.mayUse(IPAddress("10.1.2.3")!))
        #expect(policy.words(Sample.flow("a.example", "10.1.2.3")) == "allow rule 0")
        #expect(policy.words(Sample.flow("b.example", "10.1.2.3")) == "allow rule 1")
        #expect(policy.words(Sample.flow(nil, "10.1.2.3")) == "allow rule 1")
        #expect(policy.words(Sample.flow(nil, "10.2.2.3")) == "deny guard-range")
        // Wider than the range it reaches into.
        #expect(policy.words(Sample.flow(nil, "192.168.0.1")) == "deny guard-range")
        #expect(policy.words(Sample.flow(nil, "192.169.0.1")) == "allow rule 2")
        #expect(policy.words(Sample.flow(nil, "fd00::1")) == "allow rule 3")
        #expect(policy.words(Sample.flow(nil, "fc00::1")) == "deny guard-range")
    }

    @Test func aBroadRuleDoesNotOpenItNorKeepAnotherFromIt() {
        let policy = Sample.policy("allow 0.0.0.0/0", "allow 10.0.0.5")
        #expect(policy.words(Sample.flow(nil, "10.0.0.5")) == "allow rule 0")
        #expect(policy.words(Sample.flow(nil, "10.0.0.6")) == "deny guard-range")
    }

    @Test func itIsOpenOnlyForWhatTheRuleAllows() {
        let policy = Sample.policy("allow 10.0.0.53 53 udp", "allow *.example")
        #expect(policy.words(Sample.flow(nil, "10.0.0.53", 53, .udp)) == "allow rule 0")
        #expect(policy.words(Sample.flow("rebound.example", "10.0.0.53", 80)) == "deny guard-range")
        let denied = Sample.policy("deny 10.0.0.0/24", "allow 10.0.0.0/8", "allow a.example")
        #expect(denied.words(Sample.flow("a.example", "10.0.0.5")) == "deny guard-range")
        #expect(!denied.mayUse(IPAddress("10.0.0.5")!))
        #expect(denied.mayUse(IPAddress("10.0.1.5")!))
    }

    @Test func anExpiredRuleOpensNothing() {
        let policy = CompiledPolicy(
            Policy(defaultAction: .allow, rules: [Sample.rule("allow 10.0.0.0/8", expiresAt: Sample.now)])
        )
        #expect(policy.words(Sample.flow(nil, "10.0.0.5"), at: Sample.past) == "allow rule 0")
        #expect(policy.words(Sample.flow(nil, "10.0.0.5"), at: Sample.now) == "deny guard-range")
        #expect(policy.mayUse(IPAddress("10.0.0.5")!, at: Sample.past))
        #expect(!policy.mayUse(IPAddress("10.0.0.5")!, at: Sample.now))
    }

    @Test func operatorRulesOpenAndClose() {
        let always = AlwaysRules(deny: [Sample.rule("deny 10.0.0.1")], allow: [Sample.rule("allow 10.0.0.0/24")])
        let policy = Sample.policy(always: always)
        #expect(policy.words(Sample.flow(nil, "10.0.0.2")) == "allow rule allow.always 0")
        #expect(policy.words(Sample.flow(nil, "10.0.0.1")) == "deny guard-range")
    }

    @Test func theNodesOwnAddressesAreRangesOfTheirOwn() {
        let node = [IPAddress("203.0.113.9")!, IPAddress("10.0.0.9")!, IPAddress("2001:db8::9")!]
        let policy = Sample.policy("allow 203.0.113.0/24", "allow 10.0.0.0/8", "allow 2001:db8::9", nodeAddresses: node)
        #expect(policy.words(Sample.flow(nil, "203.0.113.9")) == "deny guard-range")
        #expect(policy.words(Sample.flow(nil, "203.0.113.8")) == "allow rule 0")
        #expect(policy.words(Sample.flow(nil, "10.0.0.9")) == "deny guard-range")
        #expect(policy.words(Sample.flow(nil, "10.0.0.8")) == "allow rule 1")
        #expect(policy.words(Sample.flow(nil, "2001:db8::9")) == "allow rule 2")
        #expect(policy.words(Sample.flow(nil, "64:ff9b::203.0.113.9")) == "deny guard-range")
    }

    @Test func theRangeAroundATranslatedAddressIsTheTranslatedRange() {
        // Both ways to write the address have to be opened.
        let policy = Sample.policy(
            "allow 64:ff9b::10.0.0.0/104",
            "allow 10.0.0.0/8",
            "allow 2002:a00::/23",
            "allow 64:ff9b::/96"
        )
        #expect(policy.words(Sample.flow(nil, "64:ff9b::10.0.0.5")) == "allow rule 0")
        #expect(policy.words(Sample.flow(nil, "2002:a00:5::1")) == "deny guard-range")
        #expect(policy.words(Sample.flow(nil, "64:ff9b::192.168.0.1")) == "deny guard-range")
        #expect(Sample.policy("allow 10.0.0.0/8").words(Sample.flow(nil, "::ffff:10.0.0.5")) == "deny guard-range")
    }

    @Test func theAddressInsideIsJudgedByTheRulesAsWell() {
        let policy = Sample.policy("deny 203.0.113.7", "allow 64:ff9b::/96", "allow 203.0.113.0/24", "allow a.example")
        #expect(policy.words(Sample.flow(nil, "64:ff9b::203.0.113.7")) == "deny rule 0")
        #expect(policy.words(Sample.flow(nil, "64:ff9b::203.0.113.8")) == "allow rule 1")
        #expect(policy.words(Sample.flow(nil, "64:ff9b::198.51.100.1")) == "deny default")
        // Allowed by its address outside and by its name inside: the name has to be shown.
        #expect(policy.decide(Sample.flow("a.example", "64:ff9b::198.51.100.1"), at: Sample.now).basis == .name)
        #expect(policy.words(Sample.flow("a.example", "64:ff9b::203.0.113.7")) == "deny rule 0")
    }
}

extension String {
    /// Addresses that hold an IPv4 address where no interval of IPv6 addresses can say so.
    fileprivate var hasDeepEmbedding: Bool {
        contains("5efe") || hasPrefix("64:ff9b:1:2") || hasPrefix("2001:0:cb00")
    }
}
