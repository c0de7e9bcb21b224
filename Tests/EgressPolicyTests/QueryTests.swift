import EgressPolicy
import NetPrimitives
import Testing

@Suite struct QueryTests {
    @Test func isAllowedWhenSomePortAndProtocolCouldBe() {
        let policy = Sample.policy(
            "deny a.example 443",
            "allow a.example 443,8443",
            "deny b.example 1-65535",
            "allow *.example"
        )
        #expect(policy.query("a.example") == "allow")
        #expect(policy.query("b.example") == "nodata, deny rule 2")
        #expect(policy.query("c.example") == "allow")
        #expect(policy.query("other") == "deny default")
        #expect(Sample.policy("deny a.example 80 tcp", defaultAction: .allow).query("a.example") == "allow")
        #expect(Sample.policy("deny a.example tcp", defaultAction: .allow).query("a.example") == "nodata, deny rule 0")
    }

    @Test func aNameRuleForUDPWithoutPortsAllowsNothing() {
        #expect(Sample.policy("allow a.example udp").query("a.example") == "deny default")
        #expect(Sample.policy("allow a.example 53 udp").query("a.example") == "allow")
    }

    @Test func aRuleAboutAddressesDoesNotMakeNamesResolve() {
        let policy = Sample.policy("allow 203.0.113.0/24", "allow a.example")
        #expect(policy.query("evil.example") == "deny default")
        #expect(policy.query("a.example") == "allow")
    }

    @Test func isDeniedWhenNoAddressIsLeft() {
        let none = Sample.policy("deny 0.0.0.0/0", "deny ::/0", "allow a.example")
        #expect(none.query("a.example") == "deny rule 0")
        #expect(Sample.policy("deny 0.0.0.0/0", "allow a.example").query("a.example") == "allow")
        let split = Sample.policy("deny 0.0.0.0/1", "deny 128.0.0.0/1", "deny ::/1", "deny 8000::/1", "allow a.example")
        #expect(split.query("a.example") == "deny rule 0")
        let port = Sample.policy("deny 0.0.0.0/0 443", "deny ::/0 443", "allow a.example 443", "allow b.example 443,80")
        #expect(port.query("a.example") == "deny rule 0")
        #expect(port.query("b.example") == "allow")
        let before = Sample.policy("allow a.example", "deny 0.0.0.0/0", "deny ::/0")
        #expect(before.query("a.example") == "allow")
        let elsewhere = Sample.policy("allow 203.0.113.0/24", "deny 0.0.0.0/0", "deny ::/0", "allow a.example")
        #expect(elsewhere.query("a.example") == "allow")
        #expect(
            Sample.policy("deny 0.0.0.0/0", "deny ::/0", defaultAction: .allow).query("a.example").hasPrefix("deny")
        )
    }

    @Test func aNameAboveAnAllowedOneHasNoDataInsteadOfNotExisting() {
        let policy = Sample.policy(
            "allow *.a.example",
            "allow www.b.example",
            "allow api-*.c.example",
            "deny *.d.example"
        )
        for name in ["a.example", "b.example", "c.example", "example"] {
            #expect(policy.query(name) == "nodata, deny default")
        }
        #expect(policy.query("www.a.example") == "allow")
        #expect(policy.query("x.b.example") == "deny default")
        #expect(policy.query("x.c.example") == "deny default")
        #expect(policy.query("d.example") == "deny default")
        #expect(policy.query("x.d.example") == "deny rule 3")
        let open = Sample.policy("deny a.example", "deny *.b.example", defaultAction: .allow)
        #expect(open.query("a.example") == "nodata, deny rule 0")
        #expect(open.query("x.b.example") == "deny rule 1")
        #expect(open.query("b.example") == "allow")
    }

    @Test func anExpiredRuleKeepsNothingAbove() {
        let policy = CompiledPolicy(Policy(rules: [Sample.rule("allow *.a.example", expiresAt: Sample.now)]))
        #expect(policy.query("a.example", at: Sample.past) == "nodata, deny default")
        #expect(policy.query("a.example") == "deny default")
        #expect(policy.query("x.a.example") == "deny expired-rule 0")
    }

    @Test func theWildcardThatAllowsANameIsTheKeyOfItsBudget() throws {
        let policy = Sample.policy("deny *.x.example", "allow www.example", "allow w*.example", "allow *.example")
        func key(_ name: String) throws -> Int? { policy.wildcardKey(for: try DomainName(name))?.index }
        #expect(try key("a.example") == 3)
        #expect(try key("web.example") == 2)
        #expect(try key("www.example") == nil)
        #expect(try key("other") == nil)
        let open = Sample.policy("allow *.example", defaultAction: .allow)
        #expect(open.wildcardKey(for: try DomainName("a.example")) == nil)
    }
}
