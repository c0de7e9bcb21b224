import EgressCore
import EgressPolicy
import NetPrimitives
import Testing

@testable import Audit

@Suite struct DenialSummaryTests {
    private func rendered(_ events: [AuditEvent], width: Int = 100) -> String {
        var summary = DenialSummary()
        events.forEach { summary.observe($0) }
        return summary.render(width: width, colour: false)
    }

    @Test func saysNothingWhenNothingWasRefused() {
        var allowed = AuditEvent(.connectionAllowed, time: sampleTime, sandbox: "s")
        allowed.verdict = Verdict(.allow, .rule)
        #expect(rendered([allowed, AuditEvent(.sandboxAttached, time: sampleTime, sandbox: "s")]) == "")
    }

    @Test func theEndOfWhatReportModeLetThroughIsNotAnotherOne() {
        var passed = denied()
        passed.kind = .connectionAllowed
        passed.verdict?.action = .allow
        passed.verdict?.isReportOnly = true
        var closed = passed
        closed.kind = .connectionClosed
        closed.layer = nil
        #expect(rendered([passed, closed]).hasPrefix("sandgate: 1 connection would be refused"))
        #expect(HumanLine.text(for: closed, colour: false) == nil)
    }

    @Test func showsWhatHowOftenAndWhy() throws {
        let wildcard = Target.subdomains(of: try DomainName("ads.example"))
        let banned = Target.name(try DomainName("banned.example"))
        let events = [
            denied("evil.example", address: nil, port: nil, layer: .dns, transport: nil),
            denied(), denied(address: "203.0.113.6"), denied(count: 40),
            denied(nil, address: "203.0.113.9", port: 22, layer: .ip),
            denied(nil, address: "2001:db8::9", port: 53, layer: .ip, transport: 17),
            denied(nil, address: "169.254.169.254", port: 80, layer: .httpHost, reason: .guardRange),
            denied(
                "x.ads.example",
                port: 80,
                layer: .httpHost,
                reason: .rule,
                rule: try reference(.policy, 3, wildcard)
            ),
            denied("banned.example", layer: .connect, reason: .rule, rule: try reference(.denyAlways, 0, banned)),
            denied(nil, address: "192.0.2.1", port: nil, layer: .ip, transport: 1),
        ]
        #expect(
            rendered(events) == """
                sandgate: 1 name, 46 connections and 2 packets refused
                  TIMES  DESTINATION           LAYER      WHY
                     42  evil.example:443      tls-sni    default: no rule allows it
                      1  evil.example          dns        default: no rule allows it
                      1  203.0.113.9:22        ip         default: no rule allows it
                      1  [2001:db8::9]:53/udp  ip         default: no rule allows it
                      1  169.254.169.254:80    http-host  guard-range: a guarded address range
                      1  x.ads.example:80      http-host  rule: egress[3] deny *.ads.example
                      1  banned.example:443    connect    rule: deny.always[0] deny banned.example
                      1  192.0.2.1/icmp        ip         default: no rule allows it

                To allow these, add to the policy's egress list what you trust:
                  - {action: allow, target: "evil.example", ports: [443], protocol: tcp}
                  - {action: allow, target: "203.0.113.9", ports: [22], protocol: tcp}
                  - {action: allow, target: "2001:db8::9", ports: [53], protocol: udp}
                  - {action: allow, target: "x.ads.example", ports: [80], protocol: tcp}  # must stand before egress[3] \
                deny *.ads.example

                No line is suggested for:
                  guard-range: private, link-local and metadata addresses open only to an address rule inside that
                    range; write one only for a service that untrusted code may use.
                  deny.always[0] deny banned.example: the operator's rules stand before every policy.
                  icmp: a policy can allow only TCP and UDP.

                """
        )
    }

    @Test func assumesAPortWhereOnlyTheNameWasAskedFor() {
        let text = rendered([denied("a.example", address: nil, port: nil, layer: .dns, transport: nil)])
        #expect(
            text.contains(
                """
                  - {action: allow, target: "a.example", ports: [443], protocol: tcp}  \
                # port assumed: only the name was asked for
                """
            )
        )
    }

    @Test func joinsPortsOfOneNameAndKeepsProtocolsApart() {
        let text = rendered([
            denied("a.example", address: nil, port: nil, layer: .dns, transport: nil),
            denied("a.example", port: 443, layer: .ip, transport: 17),
            denied("a.example", port: 8443), denied("a.example", port: 443),
        ])
        #expect(text.contains(#"  - {action: allow, target: "a.example", ports: [443], protocol: udp}"# + "\n"))
        #expect(text.contains(#"  - {action: allow, target: "a.example", ports: [443, 8443], protocol: tcp}"# + "\n"))
        #expect(!text.contains("assumed"))
    }

    @Test func namesSiblingsOneByOne() {
        let text = rendered(["a", "b", "c", "d"].map { denied("\($0).cdn.example") })
        #expect(!text.contains("*"))
        #expect(text.contains("\"a.cdn.example\"") && text.contains("\"d.cdn.example\""))
    }

    @Test(arguments: Reason.allCases)
    func suggestsALineOrSaysWhyNot(reason: Reason) throws {
        let rule = reason == .rule ? try reference(.policy, 0, .name(DomainName("evil.example"))) : nil
        let text = rendered([denied(reason: reason, rule: rule)])
        let suggests = text.contains("- {action: allow")
        #expect(suggests == [.default, .rule, .askDenied, .askDeadline, .askLimit].contains(reason))
        #expect(suggests != text.contains("\n  \(reason.rawValue): "))
    }

    @Test func suggestsNothingForHostsThatAreNoNames() {
        #expect(!rendered([denied("a\nb: c", reason: .default)]).contains("action: allow"))
    }

    @Test(arguments: [(Reason.default, true), (.guardRange, false)])
    func knowsWhetherARuleWouldHelp(reason: Reason, helps: Bool) {
        var summary = DenialSummary()
        #expect(!summary.hasSuggestions)
        summary.observe(denied("a.example", reason: reason))
        #expect(summary.hasSuggestions == helps)
    }

    @Test func staysBounded() {
        var summary = DenialSummary()
        for number in 0..<5_000 { summary.observe(denied("h\(number).example")) }
        summary.observe(denied("h0.example"))
        let text = summary.render(colour: false)
        #expect(summary.others == 4_000)
        #expect(text.hasPrefix("sandgate: 5001 connections refused\n"))
        #expect(text.contains("  ... and 4980 more of many other kinds\n"))
        #expect(text.split(separator: "\n").count < 60)
    }

    @Test func keepsTheReasonInSightOfALongName() {
        let host = String(repeating: "a", count: 60) + ".tail.example"
        let row = rendered([denied(host)], width: 80).split(separator: "\n")[2]
        #expect(row.utf8.count == 80)
        #expect(row.contains("...") && row.contains("tail.example:443  tls-sni  default: no rule allows it"))
    }

    @Test func saysWhatReportModeLetThrough() {
        var event = denied()
        event.kind = .connectionAllowed
        event.verdict = Verdict(.allow, .default, isReportOnly: true)
        let text = rendered([event])
        #expect(text.hasPrefix("sandgate: 1 connection would be refused if the policy were enforced\n"))
        #expect(text.contains("default: no rule allows it (let through)"))
        #expect(
            text.contains(
                """
                To allow these when the policy is enforced, add to the policy's egress list what you trust:
                  - {action: allow, target: "evil.example"
                """
            )
        )
        // A guard range is refused all the same, and no line is suggested for it.
        let guarded = rendered([event, denied(nil, address: "10.0.0.1", reason: .guardRange)])
        #expect(
            guarded.hasPrefix(
                "sandgate: 1 connection refused; 1 connection would be if the policy were enforced\n"
            )
        )
        #expect(guarded.contains("To allow these when the policy is enforced"))
        #expect(rendered([event, denied()]).contains("To allow these, add"))
    }

    @Test func suggestsNothingWhereAPolicyIsWritten() {
        var summary = DenialSummary()
        summary.observe(denied())
        #expect(!summary.render(colour: false, isWritten: true).contains("To allow"))
    }

    /// A name is one however often and of whatever type it is asked for; attempts to connect are told apart.
    @Test func countsAsPeopleDo() {
        func query(_ name: String, _ count: UInt64? = nil) -> AuditEvent {
            denied(name, address: nil, port: nil, layer: .dns, transport: nil, count: count)
        }
        func headline(_ events: [AuditEvent]) -> Substring { rendered(events).prefix { $0 != "\n" } }
        #expect(
            headline([query("a.example"), query("a.example"), query("a.example", 6)]) == "sandgate: 1 name refused"
        )
        #expect(headline([query("a.example"), query("b.example")]) == "sandgate: 2 names refused")
        #expect(
            headline([query("a.example"), denied("a.example", count: 2), denied(layer: .ip, transport: 17)])
                == "sandgate: 1 name, 2 connections and 1 packet refused"
        )
        let many = (0..<1_001).map { query("h\($0).example") }
        #expect(headline(many + [query("h0.example")]) == "sandgate: more than 1000 names refused")
    }

    @Test func neverPrintsControlCharacters() {
        let text = rendered([denied("\u{1B}]0;x\u{7}\u{202E}evil\r\n.example")])
        #expect(text.utf8.allSatisfy { $0 == 0x0A || (0x20...0x7E).contains($0) })
        #expect(text.contains(#"\u{1b}]0;x\u{7}\u{202e}evil\u{d}\u{a}.example:443"#))
    }

    @Test func coloursOnlyWhenAsked() {
        var summary = DenialSummary()
        summary.observe(denied())
        #expect(summary.render(colour: true).contains("\u{1B}["))
        #expect(!summary.render(colour: false).contains("\u{1B}["))
    }
}

@Suite struct HumanLineTests {
    @Test func saysWhatWasRefusedAndWhy() throws {
        let rule = try reference(.policy, 3, .subdomains(of: try DomainName("example")))
        #expect(
            HumanLine.text(for: denied(), colour: false) == "sandgate: denied evil.example:443 (tls-sni, default)"
        )
        #expect(
            HumanLine.text(for: denied(reason: .rule, rule: rule), colour: false)
                == "sandgate: denied evil.example:443 (tls-sni, rule: egress[3] deny *.example)"
        )
        #expect(
            HumanLine.text(for: denied(nil, address: "2001:db8::1", port: 53, layer: .ip, transport: 17), colour: false)
                == "sandgate: denied [2001:db8::1]:53/udp (ip, default)"
        )
        #expect(
            HumanLine.text(for: denied(layer: .ip), colour: false)
                == "sandgate: denied 203.0.113.5:443 [evil.example] (ip, default)"
        )
        #expect(
            HumanLine.text(for: denied(address: nil, port: nil, layer: .dns, transport: nil), colour: false)
                == "sandgate: denied evil.example (dns, default)"
        )
    }

    @Test func saysWhatReportModeLetThrough() {
        var event = denied()
        event.verdict = Verdict(.allow, .default, isReportOnly: true)
        #expect(
            HumanLine.text(for: event, colour: false) == "sandgate: would deny evil.example:443 (tls-sni, default)"
        )
    }

    @Test func saysThatRecordsWereLost() {
        var event = AuditEvent(.auditLost, time: sampleTime, sandbox: "")
        event.count = 12
        #expect(HumanLine.text(for: event, colour: false) == "sandgate: 12 audit records were lost")
    }

    @Test func isSilentOfWhatIsAllowed() {
        var event = denied()
        event.verdict = Verdict(.allow, .rule)
        #expect(HumanLine.text(for: event, colour: false) == nil)
        #expect(HumanLine.text(for: AuditEvent(.sandboxAttached, time: sampleTime, sandbox: "s"), colour: false) == nil)
    }

    @Test func showsTheEscapesOfANameAsTheyAre() throws {
        let line = try #require(HumanLine.text(for: denied(#"\027[31m.example"#), colour: false))
        #expect(line == #"sandgate: denied \027[31m.example:443 (tls-sni, default)"#)
    }

    @Test func escapesAndColours() throws {
        let line = try #require(HumanLine.text(for: denied("\u{1B}[2Jx\\"), colour: true))
        #expect(line == "sandgate: \u{1B}[31mdenied\u{1B}[0m \\u{1b}[2Jx\\:443 \u{1B}[2m(tls-sni, default)\u{1B}[0m")
    }
}
