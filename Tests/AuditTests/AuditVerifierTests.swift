import EgressCore
import NetPrimitives
import Testing

@testable import Audit

@Suite struct AuditVerifierTests {
    private let log: [[UInt8]]

    init() {
        var chain = LineChain()
        log = (1...4).map { sequence in
            let line = AuditRecord(sequence: UInt64(sequence), event: denied("h\(sequence)"), previous: chain.digest)
                .line
            chain.follow(record: line)
            return line
        }
    }

    private func joined(_ lines: [[UInt8]]) -> [UInt8] { lines.flatMap { $0 + [UInt8(ascii: "\n")] } }

    @Test func acceptsWhatTheLogWrites() throws {
        let verifier = try verify(joined(log))
        #expect(verifier.records == 4 && verifier.lines == 4)
        #expect(try verify([]).head == nil)
    }

    @Test func detectsAnyChangedByte() throws {
        let bytes = joined(log)
        let lastLine = bytes.count - log[3].count - 1
        for index in 0..<lastLine {
            for mask in [0x01, 0x20, 0x80] as [UInt8] {
                var changed = bytes
                changed[index] ^= mask
                let broken = #expect(throws: AuditVerifier.Break.self) { try verify(changed) }
                let line = UInt64(bytes[..<index].count { $0 == UInt8(ascii: "\n") }) + 1
                #expect(broken.map { (line...(line + 1)).contains($0.line) } == true)
            }
        }
    }

    @Test func namesTheLineBehindARemovedOne() {
        for index in 0..<3 {
            var lines = log
            lines.remove(at: index)
            #expect(
                throws: AuditVerifier.Break(
                    line: UInt64(index + 1),
                    problem: .sequence(found: UInt64(index + 2), expected: UInt64(index + 1))
                )
            ) { try verify(joined(lines)) }
        }
    }

    @Test func detectsSwappedRepeatedAndInsertedLines() {
        #expect(throws: AuditVerifier.Break.self) { try verify(joined([log[0], log[2], log[1], log[3]])) }
        #expect(throws: AuditVerifier.Break.self) { try verify(joined([log[0], log[0], log[1]])) }
        #expect(throws: AuditVerifier.Break(line: 2, problem: .notARecord)) {
            try verify(joined([log[0], Array("x".utf8), log[1]]))
        }
        #expect(throws: AuditVerifier.Break(line: 2, problem: .notARecord)) {
            try verify(joined([log[0], Array("x".utf8)]))
        }
        #expect(throws: AuditVerifier.Break(line: 2, problem: .notARecord)) { try verify(joined([log[0], []])) }
    }

    @Test func doesNotLetALossExcuseAChange() {
        var event = AuditEvent(.auditLost, time: sampleTime, sandbox: "")
        event.count = 1
        let forged = AuditRecord(sequence: 3, event: event, previous: AuditVerifier().head).line
        #expect(throws: AuditVerifier.Break(line: 3, problem: .chain)) {
            try verify(joined([log[0], log[1], forged]))
        }
    }

    @Test func endsBeforeALineThatIsBeingWritten() throws {
        let verifier = try verify(joined(Array(log.prefix(2))) + log[2].prefix(40))
        #expect(verifier.records == 2)
    }

    @Test func headTellsAChangedEnd() throws {
        let whole = try verify(joined(log)).head
        var changed = joined(log)
        changed[changed.count - log[3].count + 40] ^= 1
        #expect(whole != nil)
        #expect((try? verify(changed).head) != whole)
        #expect(try verify(joined(Array(log.prefix(3)))).head != whole)
    }
}

@Suite struct AuditQueryTests {
    private func line(_ event: AuditEvent) throws -> AuditLine {
        try AuditLine(parsing: AuditRecord(sequence: 1, event: event, previous: nil).line)
    }

    @Test func everyConditionCounts() throws {
        let record = try line(denied())
        #expect(AuditQuery().matches(record))
        #expect(
            AuditQuery(sandbox: "sbx-1", verdict: .deny, since: sampleTime, host: Glob("*.EXAMPLE")).matches(record)
        )
        #expect(AuditQuery(host: Glob("203.0.113.*")).matches(record))
        #expect(!AuditQuery(sandbox: "sbx").matches(record))
        #expect(!AuditQuery(verdict: .allow).matches(record))
        #expect(!AuditQuery(verdict: .report).matches(record))
        #expect(!AuditQuery(since: sampleTime.advanced(bySeconds: 1)).matches(record))
        #expect(!AuditQuery(host: Glob("example")).matches(record))
        let started = try line(AuditEvent(.daemonStarted, time: sampleTime, sandbox: ""))
        #expect(!AuditQuery(host: Glob("*")).matches(started))
    }

    @Test(arguments: [
        ("*", "", true), ("", "", true), ("", "a", false), ("a*", "abc", true), ("*c", "abc", true),
        ("a?c", "abc", true), ("a?c", "ac", false), ("*.example.com", "a.b.example.com", true),
        ("*.example.com", "example.com", false), ("a*b*c", "aXbYbZc", true), ("a*b*c", "aXbYbZ", false),
        ("**", "x", true), ("A.Example", "a.eXAMPLE", true), ("a.b", "axb", false),
    ])
    func globs(pattern: String, text: String, matches: Bool) {
        #expect(Glob(pattern).matches(text) == matches)
    }

    @Test func globsStayFast() {
        let pattern = String(repeating: "*a", count: 200) + "b"
        #expect(!Glob(pattern).matches(String(repeating: "a", count: 500)))
    }

    @Test(arguments: [
        ("90s", -90), ("10m", -600), ("2h", -7_200), ("7d", -604_800), ("1w", -604_800), ("0s", 0),
    ])
    func readsDurations(text: String, seconds: Int64) {
        #expect(AuditQuery.since(parsing: text, now: sampleTime) == sampleTime.advanced(bySeconds: seconds))
    }

    @Test func readsTimesAndRefusesOtherText() {
        #expect(AuditQuery.since(parsing: "1970-01-01T00:00:00Z", now: sampleTime) == WallTime(microseconds: 0))
        for text in ["", "m", "10", "10x", "-1m", "1.5h", "1111111111s", "１m"] {
            #expect(AuditQuery.since(parsing: text, now: sampleTime) == nil)
        }
    }
}
