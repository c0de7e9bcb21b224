import EgressCore
import EgressPolicy
import Glibc
import NetPrimitives

@testable import Audit

extension FuzzTarget {
    /// A line of the audit log, and what a person is shown of it.
    static let auditLine = FuzzTarget(name: "audit-line") { bytes in
        guard let line = try? AuditLine(parsing: bytes) else { return }
        for colour in [false, true] {
            // What a sandbox chose must not steer a terminal: all escapes are ours.
            let shown = line.text(colour: colour).utf8.filter { $0 < 0x20 || $0 == 0x7f }
            require(colour ? shown.allSatisfy { $0 == 0x1b } : shown.isEmpty, "a control character is shown")
        }
        _ = line.rule
        _ = AuditQuery(sandbox: "s", verdict: .refused, since: line.time, host: Glob("*a*")).matches(line)
    }

    /// A file: the reader, the verifier and the search for its end see the same lines.
    static let auditLog = FuzzTarget(name: "audit-log") { bytes in
        guard let stream = tmpfile() else { fatalError("no temporary file: \(errno)") }
        defer { fclose(stream) }
        let descriptor = dup(fileno(stream))
        require(descriptor >= 0, "no descriptor: \(errno)")
        let written = bytes.withUnsafeBytes { write(descriptor, $0.baseAddress, $0.count) }
        require(written == bytes.count, "the temporary file is short")
        lseek(descriptor, 0, SEEK_SET)
        let owned = LogDescriptor(taking: descriptor)
        let file = LogBytes(descriptor: owned, path: "log")
        guard let reader = try? AuditReader(descriptor: owned, path: "log") else { fatalError("not readable") }

        var verifier = AuditVerifier()
        var lines: [[UInt8]] = []
        var isWhole = true
        while let line = try? reader.next() {
            lines.append(line.bytes)
            require(line.number == UInt64(lines.count), "a line with a wrong number")
            if isWhole, (try? verifier.consume(line.bytes)) == nil { isWhole = false }
        }
        let partial = Array(reader.partial)
        require(Array((lines + [partial]).joined(separator: [10])) == bytes, "the reader loses bytes")
        var backward: [[UInt8]] = []
        guard var reversed = try? ReverseLines(of: file, before: bytes.count) else { fatalError("not readable") }
        while let line = try? reversed.next() { backward.append(Array(line)) }
        let expected = partial.isEmpty ? lines : lines + [partial]
        require(Array(backward.reversed()) == expected, "read backwards it has other lines")
        _ = try? file.firstRecord(from: bytes.count / 2)
        _ = try? file.boundary { $0.sequence < 3 }
        guard let tail = try? LogTail(of: file), isWhole, partial.isEmpty, verifier.records > 0 else { return }
        require(tail.chain.digest == verifier.head, "the next record would stand behind something else")
    }

    /// A log as it is written: it is read back as what was recorded, verified as whole, and a change of any byte but
    /// those of its last line is seen. The input is what the records hold, and the change.
    static let auditChain = FuzzTarget(name: "audit-chain") { bytes in
        guard bytes.count > 4 else { return }
        var log: [UInt8] = []
        var chain = LineChain()
        var lastStart = 0
        let texts = bytes.dropFirst(4).split(separator: 0, maxSplits: 7, omittingEmptySubsequences: false)
        for (index, text) in texts.enumerated() {
            var event = AuditEvent(
                AuditEvent.Kind.allCases[Int(bytes[0] &+ UInt8(index)) % AuditEvent.Kind.allCases.count],
                time: WallTime(microseconds: Int64(bytes[1]) << 44),
                sandbox: String(decoding: text.prefix(8), as: UTF8.self)
            )
            event.host = String(decoding: text, as: UTF8.self)
            event.port = 443
            event.layer = .tlsSNI
            event.verdict = Verdict(.deny, .default)
            event.count = UInt64(text.count)
            let line = AuditRecord(sequence: UInt64(index + 1), event: event, previous: chain.digest).line
            guard let read = try? AuditLine(parsing: line) else { fatalError("our own record is malformed") }
            require(read.time == event.time && read.event == event.kind.rawValue, "the record says something else")
            let host = String(String.UnicodeScalarView(event.host!.unicodeScalars.prefix(AuditRecord.hostLimit)))
            require(read.host.map { Array($0.utf8) } ?? Array(host.utf8) == Array(host.utf8), "the host is another one")
            chain.follow(record: line)
            lastStart = log.count
            log += line + [10]
        }
        require(verify(log), "our own log is not whole")
        let place = (Int(bytes[2]) << 8 | Int(bytes[3])) % log.count
        guard place < lastStart, let change = bytes.last, change > 0 else { return }
        log[place] ^= change
        require(!verify(log), "a change at byte \(place) is not seen")
    }

    private static func verify(_ log: [UInt8]) -> Bool {
        var verifier = AuditVerifier()
        var lines = log.split(separator: 10, omittingEmptySubsequences: false)
        let partial = lines.removeLast()
        do throws(AuditVerifier.Break) {
            for line in lines { try verifier.consume(line) }
            try verifier.finish(partial: partial)
        } catch {
            return false
        }
        return true
    }
}
