import EgressCore
import EgressPolicy
import NetPrimitives
import Testing

// D4
@Suite struct DNSBudgetTests {
    let start = MonotonicTime(nanoseconds: 5_000_000_000)
    let rule = RuleReference(
        source: .policy,
        index: 0,
        action: .allow,
        target: .subdomains(of: try! DomainName("wild.example"))
    )

    @Test func allowsTwoHundredNamesAMinute() throws {
        var budget = DNSBudget()
        for index in 0..<200 { #expect(budget.spend(try name(index), below: rule, at: start)) }
        #expect(!budget.spend(try name(200), below: rule, at: start.advanced(bySeconds: 59)))
        // The same names again carry nothing new.
        #expect(budget.spend(try name(7), below: rule, at: start.advanced(bySeconds: 59)))
        #expect(budget.spend(try name(200), below: rule, at: start.advanced(bySeconds: 60)))
    }

    @Test func countsBytes() throws {
        var budget = DNSBudget()
        let label = String(repeating: "x", count: 60)
        var admitted = 0
        for index in 0..<200 {
            let name = try DomainName("\(index).\(label).\(label).\(label).wild.example")
            if budget.spend(name, below: rule, at: start) { admitted += name.bytes.count }
        }
        #expect(admitted <= 20_000)
        #expect(admitted > 19_700)
    }

    @Test func countsEveryRuleByItself() throws {
        var limits = DNSBudget.Limits()
        limits.maximumNames = 1
        var budget = DNSBudget(limits: limits)
        var other = rule
        other.target = .subdomains(of: try DomainName("other.example"))
        #expect(budget.spend(try name(0), below: rule, at: start))
        #expect(!budget.spend(try name(1), below: rule, at: start))
        #expect(budget.spend(try name(2), below: other, at: start))
        // A rule that moved is still the same.
        var moved = rule
        moved.index = 9
        #expect(!budget.spend(try name(1), below: moved, at: start))
    }

    private func name(_ index: Int) throws -> DomainName { try DomainName("n\(index).wild.example") }
}
