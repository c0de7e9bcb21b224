import EgressPolicy
import NetPrimitives
import PolicySuggestion
import Testing

/// What a person is asked to look at, and wildcards.
@Suite struct ReviewTests {
    private func reviews(_ records: [Record], base: String? = nil) throws -> [String: [String]] {
        let lines = try suggested(records, base: base).lines
        return Dictionary(uniqueKeysWithValues: lines.map { ("\($0.rule.target)", $0.review) })
    }

    @Test(arguments: [
        ("d111.cloudfront.net", "a shared content network"), ("bucket.s3.amazonaws.com", "an object store"),
        ("storage.googleapis.com", "an object store"), ("gist.githubusercontent.com", "serves what its users"),
        ("pastebin.com", "serves what its users"), ("hooks.slack.com", "takes messages for anybody"),
        ("abc.webhook.site", "takes messages for anybody"), ("x.ngrok-free.app", "a tunnel"),
        ("app.fly.dev", "shared hosting"), ("me.duckdns.org", "a dynamic name"),
        ("dns.google", "answers DNS over HTTPS"),
    ])
    func sharedHosts(name: String, caution: String) throws {
        #expect(try reviews([Record(host: name)])[name]?.first?.hasPrefix(caution) == true)
    }

    @Test func ordinaryNamesAreLeftAlone() throws {
        let names = ["api.example.com", "api2.example.com", "example.com", "static.example.net", "notcloudfront.net"]
        #expect(try reviews(names.map { Record(host: $0) }).values.allSatisfy(\.isEmpty))
    }

    @Test(arguments: [
        ("examp1e.com", "example.com"), ("exarnple.com", "example.com"), ("exmaple.com", "example.com"),
        ("example.co", "example.com"), ("xn--exmple-4nf.com", "example.com"), ("ex-ample.com", "example.com"),
        ("cdn.examplle.com", "cdn.example.com"), ("files-packages.org", "files.packages.org"),
        ("xn--e1afmkfd.com", nil as String?),
    ])
    func lookalikes(name: String, other: String?) throws {
        let found = try reviews([Record(host: other ?? "plain.test"), Record(host: name)])
        let clauses = try #require(found[name])
        #expect(
            clauses.contains { $0.hasPrefix(other == nil ? "an internationalised name" : "looks like ") },
            "\(clauses)"
        )
        if let other { #expect(found[other]?.contains { $0.hasPrefix("looks like ") } == true) }
    }

    @Test func namesOfTheBaseAreLookedLikeToo() throws {
        let base = "egress: [{action: allow, target: example.com, ports: [443]}]"
        #expect(try reviews([Record(host: "exampel.com")], base: base)["exampel.com"]?.isEmpty == false)
    }

    @Test func anotherOwnersNameInFront() throws {
        let found = try reviews([Record(host: "example.com"), Record(host: "example.com.evil.test")])
        #expect(found["example.com.evil.test"] == ["begins like example.com, but belongs to evil.test"])
    }

    @Test func uploads() throws {
        let closed = Record(event: "connection.closed", more: #","bytesUp":3500000,"bytesDown":1000"#)
        #expect(try reviews([Record(), closed])["api.example.com"] == ["3.3 MiB were sent to it"])
    }

    @Test func onceAndLateInALongRecord() throws {
        let often = (0..<60).map { Record(second: $0 * 60) }
        let found = try reviews(
            often + [
                Record(host: "once.example", second: 100), Record(host: "late.example", second: 3_500),
                Record(host: "late.example", second: 3_501),
            ]
        )
        #expect(found == ["api.example.com": [], "once.example": ["seen once"], "late.example": ["first seen late"]])
    }

    @Test func siblingsBecomeAWildcardOnlyWhenAsked() throws {
        let records = ["a", "b", "c", "x.y"].map { Record(host: "\($0).cdn.example") } + [Record(host: "cdn.example")]
        #expect(try suggested(records).lines.count == 5)
        #expect(try suggested(records).hints == ["4 names below cdn.example: --collapse would write \"*.cdn.example\""])
        let collapsed = try suggested(records, collapses: true)
        #expect(collapsed.lines.map { short($0.rule) } == ["cdn.example 443/tcp", "*.cdn.example 443/tcp"])
        #expect(collapsed.lines[1].times == 4)
        #expect(
            collapsed.yaml(source: "x").contains("stands for 4 names that were seen (a.cdn.example, b.cdn.example, ")
        )
    }

    @Test func aCommonBeginningIsKept() throws {
        let records = ["files-01", "files-02", "files-117"].map { Record(host: "\($0).cdn.example") }
        #expect(try suggested(records, collapses: true).lines.map { short($0.rule) } == ["files-*.cdn.example 443/tcp"])
    }

    @Test func portsAreNotWidened() throws {
        let records =
            ["a", "b", "c"].map { Record(host: "\($0).cdn.example") } + [Record(host: "d.cdn.example", port: 8443)]
        #expect(
            try suggested(records, collapses: true).lines.map { short($0.rule) } == [
                "*.cdn.example 443/tcp", "d.cdn.example 8443/tcp",
            ]
        )
    }

    @Test(arguments: [
        "com", "co.uk", "com.xx", "github.io", "s3.amazonaws.com", "s3.eu-west-1.amazonaws.com",
        "blob.core.windows.net", "cloudfront.net", "githubusercontent.com", "ngrok.io",
    ])
    func noWildcardWhereAnybodyHasAName(parent: String) throws {
        let suggested = try suggested(
            ["aaa", "bbb", "ccc", "ddd"].map { Record(host: "\($0).\(parent)") },
            collapses: true
        )
        #expect(suggested.lines.count == 4)
        #expect(suggested.lines.allSatisfy { if case .name = $0.rule.target { true } else { false } })
        #expect(suggested.hints.contains { $0.contains("below \(parent) stay as they are") })
    }

    @Test func noWildcardOverWhatIsToBeReviewed() throws {
        let upload = Record(
            event: "connection.closed",
            host: "c.cdn.example",
            more: #","bytesUp":35000000,"bytesDown":1000"#
        )
        let records = ["a", "b", "c"].map { Record(host: "\($0).cdn.example") } + [upload]
        #expect(try suggested(records, collapses: true).lines.count == 3)
    }
}
