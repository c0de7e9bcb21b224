import Audit
import EgressCore
import EgressPolicy
import Foundation
import NetPrimitives
import Testing

@Suite struct AuditReaderTests {
    private let scratch = ScratchDirectory()
    private var path: String { scratch.file("audit.jsonl") }

    private func text(_ line: AuditReader.Line?) -> String? { line.map { String(decoding: $0.bytes, as: UTF8.self) } }

    private func append(_ text: String) throws {
        let handle = try FileHandle(forWritingTo: URL(filePath: path))
        try handle.seekToEnd()
        try handle.write(contentsOf: Data(text.utf8))
        try handle.close()
    }

    @Test func readsWholeLinesAsTheFileGrows() throws {
        try overwrite(path, with: Array("one\n\ntwo".utf8))
        let reader = try AuditReader(path: path)
        #expect(text(try reader.next()) == "one")
        #expect(text(try reader.next()) == "")
        #expect(try reader.next() == nil)
        #expect(Array(reader.partial) == Array("two".utf8))
        try append("!\nthree\n")
        let second = try reader.next()
        #expect(text(second) == "two!" && second?.number == 3)
        #expect(text(try reader.next()) == "three")
        #expect(try reader.next() == nil)
        #expect(reader.partial.isEmpty)
    }

    @Test func readsLongFilesInPieces() throws {
        let log = try AuditLog(path: path)
        for number in 0..<2_000 { log.append(denied("h\(number).example")) }
        log.close()
        let reader = try AuditReader(path: path)
        var count: UInt64 = 0
        while let line = try reader.next() {
            count += 1
            #expect(try AuditLine(parsing: line.bytes).sequence == count)
        }
        #expect(count == 2_000)
    }

    @Test func beginsAnewWhenTheLogWasRotatedOrCut() throws {
        try overwrite(path, with: Array("old\n".utf8))
        let reader = try AuditReader(path: path)
        #expect(text(try reader.next()) == "old")
        try reader.reopenIfReplaced()
        #expect(try reader.next() == nil)
        try FileManager.default.moveItem(atPath: path, toPath: scratch.file("audit.jsonl.1"))
        try reader.reopenIfReplaced()
        #expect(try reader.next() == nil)
        // Foundation's write makes a new file in place of the old one.
        try overwrite(path, with: Array("new\nline\n".utf8))
        try reader.reopenIfReplaced()
        let line = try reader.next()
        #expect(text(line) == "new" && line?.number == 1)
        #expect(text(try reader.next()) == "line")
        #expect(truncate(path, 0) == 0)
        try append("cut\n")
        try reader.reopenIfReplaced()
        #expect(text(try reader.next()) == "cut")
    }

    @Test func refusesWhatCannotBeALog() throws {
        #expect(throws: AuditError.self) { try AuditReader(path: scratch.file("none")) }
        try overwrite(path, with: Array(repeating: UInt8(ascii: "x"), count: 3 << 20))
        let reader = try AuditReader(path: path)
        #expect(throws: AuditError(path: path, problem: .notAnAuditLog)) { try reader.next() }
    }

    @Test func wakesWhenSomethingIsWritten() throws {
        try overwrite(path, with: [])
        let reader = try AuditReader(path: path)
        let watch = DirectoryWatch(directories: [scratch.path])
        let file = path
        Thread.detachNewThread {
            usleep(50_000)
            try? Data("hello\n".utf8).write(to: URL(filePath: file))
        }
        var line: AuditReader.Line?
        let start = ContinuousClock.now
        while line == nil, start.duration(to: .now) < .seconds(30) {
            watch.wait()
            try reader.reopenIfReplaced()
            line = try reader.next()
        }
        #expect(text(line) == "hello")
    }
}

@Suite struct AuditLineTextTests {
    private func text(_ event: AuditEvent) throws -> String {
        try AuditLine(parsing: AuditRecord(sequence: 1, event: event, previous: nil).line).text(colour: false)
    }

    @Test func showsDecisions() throws {
        #expect(
            try text(denied())
                == "2026-11-23T00:41:07Z sbx-1 denied  evil.example:443 [203.0.113.5] (tls-sni, default)"
        )
        #expect(
            try text(denied(nil, address: "2001:db8::1", port: 53, layer: .ip, transport: 17, count: 3))
                == "2026-11-23T00:41:07Z sbx-1 denied  [2001:db8::1]:53/udp (ip, default, 3 times)"
        )
        let rule = try reference(.denyAlways, 1, .name(DomainName("evil.example")))
        #expect(
            try text(denied(address: nil, port: nil, layer: .dns, reason: .rule, rule: rule, transport: nil))
                == "2026-11-23T00:41:07Z sbx-1 denied  evil.example (dns, rule, deny.always[1] deny evil.example)"
        )
    }

    /// In a file from somebody else's hand every member may hold anything. (Found by fuzzing: the protocol was shown as it
    /// stood.)
    @Test(arguments: ["sandbox", "event", "layer", "reason", "host", "ip", "protocol"])
    func nothingSteersTheTerminal(member: String) throws {
        var members = [
            "sandbox": "s", "event": "e", "layer": "l", "reason": "r", "host": "h", "ip": "i", "protocol": "p",
        ]
        members[member] = #"\u001b[2J"#
        let texts = members.map { #","\#($0)":"\#($1)""# }.joined()
        let record = #"{"seq":1,"ts":"2026-11-23T00:41:07Z","port":1,"prev":null\#(texts)}"#
        let shown = try AuditLine(parsing: record.utf8).text(colour: false)
        #expect(shown.utf8.allSatisfy { (0x20...0x7e).contains($0) })
    }

    @Test func showsTheRest() throws {
        var closed = AuditEvent(.connectionClosed, time: sampleTime, sandbox: "s")
        closed.host = "ok.example"
        closed.port = 443
        closed.bytesUp = 1
        closed.bytesDown = 2
        closed.durationMilliseconds = 3
        #expect(
            try text(closed)
                == "2026-11-23T00:41:07Z s closed  ok.example:443 (1 bytes sent, 2 bytes received, 3 ms)"
        )
        var changed = AuditEvent(.policyChanged, time: sampleTime, sandbox: "s")
        changed.policyRevision = 8
        #expect(try text(changed) == "2026-11-23T00:41:07Z s policy.changed (revision 8)")
        var lost = AuditEvent(.auditLost, time: sampleTime, sandbox: "")
        lost.count = 9
        #expect(try text(lost) == "2026-11-23T00:41:07Z audit.lost (9 records)")
    }

    @Test func escapesWhatSandboxesChose() throws {
        let shown = try text(denied("\u{1B}[2J\n\u{202E}x"))
        #expect(shown.utf8.allSatisfy { (0x20...0x7E).contains($0) })
    }
}
