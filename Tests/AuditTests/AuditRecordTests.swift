import Audit
import EgressCore
import EgressPolicy
import NetPrimitives
import Testing

@Suite struct AuditRecordTests {
    private func text(_ event: AuditEvent, sequence: UInt64 = 41, previous: LineDigest? = nil) -> String {
        String(decoding: AuditRecord(sequence: sequence, event: event, previous: previous).line, as: UTF8.self)
    }

    @Test func writesADenialAsTheContractHasIt() throws {
        let digest = try #require(LineDigest(hexadecimal: String(repeating: "0f", count: 32).utf8))
        #expect(
            text(denied(), previous: digest) == """
                {"seq":41,"ts":"2026-11-23T00:41:07.123456Z","sandbox":"sbx-1","event":"connection.denied",\
                "layer":"tls-sni","verdict":"deny","reason":"default","host":"evil.example","ip":"203.0.113.5",\
                "port":443,"protocol":"tcp","rule":null,"policyRevision":7,\
                "prev":"0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f"}
                """
        )
    }

    @Test func writesWhatAClosedConnectionMoved() {
        var event = AuditEvent(.connectionClosed, time: sampleTime, sandbox: "sbx-1")
        event.host = "ok.example"
        event.port = 443
        event.ipProtocol = 17
        event.bytesUp = 517
        event.bytesDown = 1 << 40
        event.durationMilliseconds = 0
        #expect(
            text(event) == """
                {"seq":41,"ts":"2026-11-23T00:41:07.123456Z","sandbox":"sbx-1","event":"connection.closed",\
                "host":"ok.example","ip":null,"port":443,"protocol":"udp","bytesUp":517,"bytesDown":1099511627776,\
                "durationMs":0,"prev":null}
                """
        )
    }

    @Test func writesAReportedDenialAsAllowed() throws {
        var event = AuditEvent(.connectionAllowed, time: sampleTime, sandbox: "s")
        event.verdict = Verdict(.allow, .default, isReportOnly: true)
        #expect(text(event).contains(#""verdict":"allow","report":true,"reason":"default","host":null,"ip":null,"#))
    }

    @Test func writesTheRuleThatDecided() throws {
        let name = try DomainName("evil.example")
        let policyRule = text(denied(reason: .rule, rule: try reference(.policy, 3, .subdomains(of: name))))
        #expect(policyRule.contains(#""rule":{"index":3,"action":"deny","target":"*.evil.example"},"policyRevision""#))
        let operators = text(denied(reason: .rule, rule: try reference(.denyAlways, 0, .name(name))))
        #expect(
            operators.contains(#""rule":{"index":0,"action":"deny","target":"evil.example","source":"deny.always"}"#)
        )
    }

    @Test func omitsTheSandboxOfEventsThatHaveNone() {
        #expect(
            text(AuditEvent(.daemonStarted, time: WallTime(microseconds: 0), sandbox: ""), sequence: 1)
                == #"{"seq":1,"ts":"1970-01-01T00:00:00.000000Z","event":"daemon.started","prev":null}"#
        )
    }

    @Test(arguments: [
        ("a\"b\\c", #"a\"b\\c"#), ("a\nb\u{0}\u{1B}[31m", #"a\u000ab\u0000\u001b[31m"#), ("\u{7F}", #"\u007f"#),
        ("bücher", #"b\u00fccher"#), ("😀", #"\ud83d\ude00"#), ("\u{202E}", #"\u202e"#),
    ])
    func escapesWhatIsNotPrintable(host: String, escaped: String) throws {
        let line = AuditRecord(sequence: 1, event: denied(host), previous: nil).line
        #expect(line.allSatisfy { (0x20...0x7E).contains($0) })
        #expect(String(decoding: line, as: UTF8.self).contains("\"host\":\"\(escaped)\""))
        #expect(try AuditLine(parsing: line).host == host)
    }

    @Test func boundsWhatASandboxCanWrite() {
        let event = denied(String(repeating: "😀", count: 100_000))
        #expect(AuditRecord(sequence: 1, event: event, previous: nil).line.count < 8_192)
    }

    @Test func readsBackWhatItWrites() throws {
        let name = try DomainName("evil.example")
        var event = denied(reason: .rule, rule: try reference(.allowAlways, 2, .name(name)), count: 9)
        event.bytesUp = 1
        event.bytesDown = 2
        event.durationMilliseconds = 3
        let line = try AuditLine(parsing: AuditRecord(sequence: 5, event: event, previous: nil).line)
        #expect(line.sequence == 5)
        #expect(line.time == sampleTime)
        #expect(line.sandbox == "sbx-1")
        #expect(line.event == "connection.denied")
        #expect(line.previous == nil)
        #expect(line.layer == "tls-sni")
        #expect(line.verdict == "deny")
        #expect(!line.isReportOnly)
        #expect(line.reason == "rule")
        #expect(line.host == "evil.example")
        #expect(line.address == "203.0.113.5")
        #expect(line.port == 443)
        #expect(line.protocolName == "tcp")
        #expect(line.policyRevision == 7)
        #expect(line.bytesUp == 1 && line.bytesDown == 2 && line.durationMilliseconds == 3 && line.count == 9)
        let rule = try #require(line.rule)
        #expect(rule == (2, "deny", "evil.example", "allow.always"))
    }

    @Test(arguments: [
        "", "{", "null", "[]", "{}", #"{"seq":1}"#,
        #"{"seq":1,"ts":"1970-01-01T00:00:00Z","event":"x"}"#,
        #"{"seq":-1,"ts":"1970-01-01T00:00:00Z","event":"x","prev":null}"#,
        #"{"seq":01,"ts":"1970-01-01T00:00:00Z","event":"x","prev":null}"#,
        #"{"seq":18446744073709551616,"ts":"1970-01-01T00:00:00Z","event":"x","prev":null}"#,
        #"{"seq":18446744073709551615,"ts":"1970-01-01T00:00:00Z","event":"x","prev":null}"#,
        #"{"seq":1,"seq":2,"ts":"1970-01-01T00:00:00Z","event":"x","prev":null}"#,
        #"{"seq":1,"ts":"1970-02-30T00:00:00Z","event":"x","prev":null}"#,
        #"{"seq":1,"ts":"1970-01-01T00:00:00Z","event":"x","prev":"00"}"#,
        #"{"seq":1,"ts":"1970-01-01T00:00:00Z","event":"x","prev":null} x"#,
        #"{"seq":1,"ts":"1970-01-01T00:00:00Z","event":"x","prev":null,}"#,
        #"{"seq":1,"ts":"1970-01-01T00:00:00Z","event":"x","prev":null,"host":1}"#,
        #"{"seq":1,"ts":"1970-01-01T00:00:00Z","event":"x","prev":null,"host":"\q"}"#,
        #"{"seq":1,"ts":"1970-01-01T00:00:00Z","event":"x","prev":null,"host":"\u00"}"#,
        #"{"seq":1,"ts":"1970-01-01T00:00:00Z","event":"ü","prev":null}"#,
        #"{"a":{"a":{"a":{"a":{"a":{"a":{"a":{"a":{"a":{"a":1}}}}}}}}}}"#,
    ])
    func refusesWhatIsNoRecord(line: String) {
        #expect(throws: AuditLine.ParseError.self) { try AuditLine(parsing: Array(line.utf8)) }
    }

    @Test func keepsWhatLaterVersionsMayAdd() throws {
        let text = #"{"seq":1,"ts":"1970-01-01T00:00:00Z","event":"new.kind","prev":null,"more":{"a":true,"b":false}}"#
        #expect(try AuditLine(parsing: text.utf8).event == "new.kind")
    }
}
