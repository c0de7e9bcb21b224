import EgressPolicy
import NetPrimitives
import Testing

/// The sentences of the policy's meaning, one by one.
@Suite struct DecisionTests {
    // MARK: Targets

    @Test func aNameMatchesExactlyThatName() {
        let policy = Sample.policy("allow example.com")
        #expect(policy.words(Sample.flow("example.com")) == "allow rule 0")
        #expect(policy.words(Sample.flow("www.example.com")) == "deny default")
        #expect(policy.words(Sample.flow("xexample.com")) == "deny default")
        #expect(policy.words(Sample.flow("com")) == "deny default")
        #expect(policy.words(Sample.flow(nil)) == "deny default")
    }

    @Test func aWildcardMatchesEveryNameBelowAtAnyDepthButNotTheNameItself() {
        let policy = Sample.policy("allow *.example.com")
        #expect(policy.words(Sample.flow("www.example.com")) == "allow rule 0")
        #expect(policy.words(Sample.flow("a.b.c.example.com")) == "allow rule 0")
        #expect(policy.words(Sample.flow("example.com")) == "deny default")
        #expect(policy.words(Sample.flow("xexample.com")) == "deny default")
        #expect(policy.words(Sample.flow("example.com.evil.example")) == "deny default")
    }

    @Test func aPatternMatchesWithinTheLeftMostLabel() {
        let policy = Sample.policy("allow api-*.example.com", "allow *-x.example.com", "allow a*a.example.com")
        #expect(policy.words(Sample.flow("api-1.example.com")) == "allow rule 0")
        #expect(policy.words(Sample.flow("api-.example.com")) == "allow rule 0")
        #expect(policy.words(Sample.flow("api-x.example.com")) == "allow rule 0")
        #expect(policy.words(Sample.flow("web-x.example.com")) == "allow rule 1")
        #expect(policy.words(Sample.flow("aba.example.com")) == "allow rule 2")
        #expect(policy.words(Sample.flow("aa.example.com")) == "allow rule 2")
        #expect(policy.words(Sample.flow("a.example.com")) == "deny default")
        #expect(policy.words(Sample.flow("v1.api-1.example.com")) == "deny default")
        #expect(policy.words(Sample.flow("api-1.sub.example.com")) == "deny default")
        #expect(policy.words(Sample.flow("api-1.com")) == "deny default")
    }

    @Test func addressRulesMatchTheAddressWhateverTheName() {
        let policy = Sample.policy("allow 203.0.113.0/24", "allow 2001:db8::/32")
        #expect(policy.words(Sample.flow(nil, "203.0.113.255")) == "allow rule 0")
        #expect(policy.words(Sample.flow("example.com", "203.0.113.0")) == "allow rule 0")
        #expect(policy.words(Sample.flow(nil, "203.0.114.0")) == "deny default")
        #expect(policy.words(Sample.flow(nil, "2001:db8:ffff::1")) == "allow rule 1")
        #expect(policy.words(Sample.flow(nil, "2001:db9::")) == "deny default")
        #expect(policy.decide(Sample.flow(nil, "203.0.113.1"), at: Sample.now).basis == .address)
    }

    // MARK: Order and precedence

    @Test func theFirstRuleThatMatchesDecides() {
        let policy = Sample.policy("deny evil.example.com", "allow *.example.com", "deny a.example.com")
        #expect(policy.words(Sample.flow("evil.example.com")) == "deny rule 0")
        #expect(policy.words(Sample.flow("a.example.com")) == "allow rule 1")
        let verdict = policy.decide(Sample.flow("a.example.com"), at: Sample.now)
        #expect(verdict.basis == .name)
        #expect(verdict.rule?.target.description == "*.example.com")
    }

    @Test func alwaysRulesStandBeforeThePolicy() {
        // The list decides what a rule does, not its action.
        let always = AlwaysRules(
            deny: [Sample.rule("deny a.example"), Sample.rule("allow c.example")],
            allow: [Sample.rule("allow a.example"), Sample.rule("allow b.example")]
        )
        let policy = Sample.policy("allow a.example", "deny b.example", "allow c.example", always: always)
        #expect(policy.words(Sample.flow("a.example")) == "deny rule deny.always 0")
        #expect(policy.words(Sample.flow("b.example")) == "allow rule allow.always 1")
        #expect(policy.words(Sample.flow("c.example")) == "deny rule deny.always 1")
    }

    @Test func theDefaultDecidesWhatNoRuleMatches() {
        #expect(Sample.policy().words(Sample.flow("a.example")) == "deny default")
        #expect(Sample.policy(defaultAction: .allow).words(Sample.flow("a.example")) == "allow default")
        #expect(Sample.policy("deny a.example", defaultAction: .allow).words(Sample.flow("a.example")) == "deny rule 0")
    }

    @Test func aRuleNeedsItsPortsAndProtocolToMatch() {
        let policy = Sample.policy(
            "allow a.example 443,8000-8100 tcp",
            "allow a.example 53 udp",
            "allow b.example 1-65535 any"
        )
        #expect(policy.words(Sample.flow("a.example", "203.0.113.5", 443)) == "allow rule 0")
        #expect(policy.words(Sample.flow("a.example", "203.0.113.5", 8100)) == "allow rule 0")
        #expect(policy.words(Sample.flow("a.example", "203.0.113.5", 8101)) == "deny default")
        #expect(policy.words(Sample.flow("a.example", "203.0.113.5", 443, .udp)) == "deny default")
        #expect(policy.words(Sample.flow("a.example", "203.0.113.5", 53, .udp)) == "allow rule 1")
        #expect(policy.words(Sample.flow("a.example", "203.0.113.5", 53)) == "deny default")
        #expect(policy.words(Sample.flow("b.example", "203.0.113.5", 65535, .udp)) == "allow rule 2")
    }

    @Test func thereIsOneOrderOverNamesAndAddresses() {
        let denied = Sample.policy("deny 203.0.113.0/24", "allow a.example")
        #expect(denied.words(Sample.flow("a.example", "203.0.113.5")) == "deny rule 0")
        #expect(denied.words(Sample.flow("a.example", "198.51.100.5")) == "allow rule 1")
        let allowed = Sample.policy("allow a.example", "deny 203.0.113.0/24")
        #expect(allowed.words(Sample.flow("a.example", "203.0.113.5")) == "allow rule 0")
        let nested = Sample.policy("allow 203.0.113.7", "deny 203.0.0.0/16", "allow 203.0.113.0/24")
        #expect(nested.words(Sample.flow(nil, "203.0.113.7")) == "allow rule 0")
        #expect(nested.words(Sample.flow(nil, "203.0.113.8")) == "deny rule 1")
    }

    @Test func aNameWithoutAnAddressIsJudgedByNameRulesAlone() {
        let policy = Sample.policy("deny 0.0.0.0/0", "allow a.example")
        #expect(policy.words(Sample.flow("a.example", nil)) == "allow rule 1")
    }

    // MARK: UDP

    @Test func udpPassesOnlyWhereARuleAsksForItOrSpeaksOfAddresses() {
        let policy = Sample.policy(
            "allow a.example any",
            "allow a.example 443 any",
            "allow 203.0.113.9",
            "allow a.example 444",
            defaultAction: .allow
        )
        #expect(policy.words(Sample.flow("a.example", "203.0.113.5", 444, .udp)) == "deny default")
        #expect(policy.words(Sample.flow("a.example", "203.0.113.5", 443, .udp)) == "allow rule 1")
        #expect(policy.words(Sample.flow("a.example", "203.0.113.5", 80, .udp)) == "deny default")
        #expect(policy.words(Sample.flow(nil, "203.0.113.9", 80, .udp)) == "allow rule 2")
        #expect(policy.words(Sample.flow("b.example", "203.0.113.5", 443, .udp)) == "deny default")
        let denying = Sample.policy("deny a.example", "allow *.example 443")
        #expect(denying.words(Sample.flow("a.example", "203.0.113.5", 443, .udp)) == "deny rule 0")
    }

    @Test func udpPortsAreThoseThatNameRulesList() throws {
        let policy = Sample.policy(
            "deny a.example 8001",
            "allow *.example 8000-8002,443 any",
            "allow a.example",
            "allow 203.0.113.9"
        )
        let name = try DomainName("a.example")
        #expect(policy.udpPorts(for: name, at: Sample.now).map(\.description) == ["443", "8000", "8002"])
        #expect(policy.udpPorts(for: try DomainName("other"), at: Sample.now) == [])
        #expect(policy.allowsUDPByName)
        #expect(!Sample.policy("allow a.example", "allow 203.0.113.9 53 udp").allowsUDPByName)
    }

    // MARK: Expiry

    @Test func anExpiredRuleDoesNotExist() {
        let compiled = CompiledPolicy(
            Policy(rules: [
                Sample.rule("deny a.example", expiresAt: Sample.now),
                Sample.rule("allow a.example", expiresAt: Sample.future),
                Sample.rule("allow b.example", expiresAt: Sample.past),
                Sample.rule("deny c.example", expiresAt: Sample.past),
            ])
        )
        #expect(compiled.words(Sample.flow("a.example"), at: Sample.past) == "deny rule 0")
        #expect(compiled.words(Sample.flow("a.example")) == "allow rule 1")
        #expect(compiled.words(Sample.flow("a.example"), at: Sample.future) == "deny default")
        #expect(compiled.words(Sample.flow("b.example")) == "deny expired-rule 2")
        #expect(compiled.words(Sample.flow("c.example")) == "deny default")
        #expect(compiled.query("b.example") == "deny expired-rule 2")
    }

    @Test func tellsWhenTheNextRuleExpires() {
        let compiled = CompiledPolicy(
            Policy(rules: [
                Sample.rule("allow a.example", expiresAt: Sample.future),
                Sample.rule("allow b.example", expiresAt: Sample.past),
                Sample.rule("allow c.example"),
            ])
        )
        #expect(compiled.nextExpiry(after: WallTime(microseconds: 0)) == Sample.past)
        #expect(compiled.nextExpiry(after: Sample.past) == Sample.future)
        #expect(compiled.nextExpiry(after: Sample.future) == nil)
    }

    // MARK: Report mode

    @Test func reportModeLetsPassAndSaysWhatWouldHaveDenied() {
        let policy = Sample.policy("deny a.example", "allow b.example", mode: .report)
        #expect(policy.words(Sample.flow("a.example")) == "allow rule 0 (report)")
        #expect(policy.words(Sample.flow("b.example")) == "allow rule 1")
        #expect(policy.words(Sample.flow("c.example")) == "allow default (report)")
        #expect(policy.words(Sample.flow("b.example", "10.0.0.1")) == "deny guard-range")
        #expect(policy.words(Sample.flow(nil, "::ffff:169.254.169.254")) == "deny guard-range")
        #expect(policy.query("a.example") == "allow")
        #expect(policy.enforcedQuery(try! DomainName("c.example"), at: Sample.now) == .deny(Verdict(.deny, .default)))
    }
}
