import EgressCore
import Foundation
import NetPrimitives
import Testing

@testable import Audit

@Suite struct AuditTrailReaderTests {
    private let scratch = ScratchDirectory()

    private func path(_ name: String) -> String { scratch.file(name) }

    private func write(_ trail: AuditTrail, _ count: Int = 1) {
        for _ in 0..<count {
            trail.append(denied())
            trail.flush(now: sampleTime)
        }
    }

    private func sequences(_ reader: AuditTrailReader) throws -> [UInt64] {
        var found: [UInt64] = []
        while let line = try reader.next() { found.append(try AuditLine(parsing: line.bytes).sequence) }
        return found
    }

    @Test func goesOnOverRotations() throws {
        let reader = try AuditTrailReader(directory: scratch.path)
        #expect(try reader.next() == nil)
        let trail = try AuditTrail(directory: scratch.path, limits: limits())
        write(trail, 2)
        #expect(try sequences(reader) == [1, 2])
        #expect(reader.path == path("audit.jsonl"))
        // Written to the file that is read, after its end was seen, and rotated before the reader looks again.
        trail.append(denied())
        trail.limits.maximumFileBytes = 1
        trail.flush(now: sampleTime)
        write(trail, 3)
        #expect(try sequences(reader) == [3, 4, 5, 6])
        write(trail)
        #expect(try sequences(reader) == [7])
        #expect(try sequences(reader) == [])
    }

    @Test func numbersLinesFileByFile() throws {
        let trail = try AuditTrail(directory: scratch.path, limits: limits())
        write(trail, 2)
        trail.limits.maximumFileBytes = 1
        write(trail, 2)
        let reader = try AuditTrailReader(directory: scratch.path)
        var places: [String] = []
        while let line = try reader.next() {
            places.append("\(URL(filePath: reader.path).lastPathComponent):\(line.number)")
        }
        let first = "audit-00000000000000000001.jsonl"
        #expect(places == ["\(first):1", "\(first):2", "\(first):3", "audit-00000000000000000004.jsonl:1"])
    }

    @Test func passesOverFilesThatWereRemoved() throws {
        let trail = try AuditTrail(directory: scratch.path, limits: limits(bytes: 1))
        write(trail, 5)
        let reader = try AuditTrailReader(directory: scratch.path)
        #expect(try AuditLine(parsing: try #require(try reader.next()).bytes).sequence == 1)
        trail.limits.maximumFiles = 3
        write(trail)
        #expect(try sequences(reader) == [5, 6])
    }

    @Test func startsWithTheFileThatATimeIsIn() throws {
        let trail = try AuditTrail(directory: scratch.path, limits: limits(age: 3_600))
        for hour in 0..<10 {
            trail.append(denied(at: later(Int64(hour) * 3_600)))
            trail.flush(now: later(Int64(hour) * 3_600))
        }
        func first(_ time: WallTime) throws -> UInt64? {
            try sequences(AuditTrailReader(directory: scratch.path, since: time)).first
        }
        let all = try TrailFiles(in: scratch.path)
        #expect(all.sequences.count > 5)
        #expect(try first(later(-1)) == 1)
        for hour in 1..<10 {
            let found = try #require(try first(later(Int64(hour) * 3_600)))
            #expect(found <= UInt64(hour + 1) && found + 3 >= UInt64(hour + 1))
        }
    }

    @Test func startsWithTheCurrentFileWhenItIsTheOnlyOne() throws {
        write(try AuditTrail(directory: scratch.path, limits: limits()), 3)
        #expect(try sequences(AuditTrailReader(directory: scratch.path, since: later(100_000))) == [1, 2, 3])
    }

    /// A writer that rotates all the time, and three who read: none misses a record or sees one twice.
    @Test func missesNothingWhileFilesAreRotated() async throws {
        let directory = scratch.path
        let total = 150
        let reader = Task.detached {
            let reader = try AuditTrailReader(directory: directory)
            var expected: UInt64 = 1
            while expected <= total {
                guard let line = try reader.next() else {
                    await Task.yield()
                    continue
                }
                let sequence = try AuditLine(parsing: line.bytes).sequence
                guard sequence == expected else { return (expected, sequence) }
                expected += 1
            }
            return (expected, expected)
        }
        let pager = Task.detached {
            let archive = AuditArchive(directory: directory)
            var last: UInt64 = 0
            while last < total {
                let page = try archive.query(AuditQuery(), after: last, limit: 50)
                for entry in page.entries {
                    guard entry.sequence == last + 1 else { return (last + 1, entry.sequence) }
                    last = entry.sequence
                }
                await Task.yield()
            }
            return (last, last)
        }
        let latest = Task.detached {
            let archive = AuditArchive(directory: directory)
            var last: UInt64 = 0
            while last < total {
                let sequences = try archive.latest(AuditQuery(), limit: 5).entries.map(\.sequence)
                let newest = sequences.first ?? 0
                guard newest >= last, sequences == (0..<UInt64(sequences.count)).map({ newest - $0 }),
                    sequences.count == min(5, Int(newest))
                else { return (last, newest) }
                last = newest
                await Task.yield()
            }
            return (last, last)
        }
        let writer = Task.detached {
            let trail = try AuditTrail(directory: directory, limits: limits(bytes: 1))
            for _ in 0..<total {
                trail.append(denied())
                trail.flush(now: sampleTime)
                await Task.yield()
            }
            trail.close()
        }
        try await writer.value
        for found in [try await reader.value, try await pager.value, try await latest.value] {
            #expect(found.0 == found.1)
        }
        #expect(try TrailFiles(in: directory).names.count == total + 1)
    }
}

@Suite struct TrailVerificationTests {
    private let scratch = ScratchDirectory()
    private func path(_ number: Int) -> String { scratch.file("audit-\(String(format: "%020d", number)).jsonl") }

    init() throws {
        let trail = try AuditTrail(directory: scratch.path, limits: limits(bytes: 500))
        for number in 1...8 {
            trail.append(denied("h\(number).example"))
            trail.flush(now: sampleTime)
        }
        #expect(try TrailFiles(in: scratch.path).sequences == [[1, 2], [3, 4], [5, 6], [7, 8], []])
    }

    private func breaks() throws -> (file: String, line: UInt64, problem: AuditVerifier.Break.Problem)? {
        try TrailVerification(directory: scratch.path).broken.map { ($0.file, $0.break.line, $0.break.problem) }
    }

    @Test func namesTheFileAndTheLine() throws {
        var bytes = try contents(path(5))
        let text = String(decoding: bytes, as: UTF8.self).replacingOccurrences(of: "h5", with: "hh")
        try overwrite(path(5), with: Array(text.utf8))
        var found = try #require(try breaks())
        #expect(found.file == path(5) && found.line == 2 && found.problem == .chain)
        // The end of one file is attested by the beginning of the next.
        bytes = Array(text.replacingOccurrences(of: "hh", with: "h5").replacingOccurrences(of: "h6", with: "hh").utf8)
        try overwrite(path(5), with: bytes)
        found = try #require(try breaks())
        #expect(found.file == path(7) && found.line == 1 && found.problem == .chain)
        let report = String(decoding: try TrailVerification(directory: scratch.path).report, as: UTF8.self)
        #expect(report.contains("\"intact\":false,\"line\":1,"))
        #expect(report.contains("audit-00000000000000000007.jsonl\",\"files\":4"))
    }

    @Test func missesAFileInTheMiddleButNotTheOldest() throws {
        #expect(unlink(path(1)) == 0)
        #expect(try breaks() == nil)
        #expect(try TrailVerification(directory: scratch.path).verifier.beginning?.sequence == 3)
        #expect(unlink(path(5)) == 0)
        let found = try #require(try breaks())
        #expect(found.file == path(7) && found.line == 1 && found.problem == .sequence(found: 7, expected: 5))
    }

    @Test func findsALineThatIsNoneAtTheEndOfAFile() throws {
        try overwrite(path(3), with: try contents(path(3)) + Array("x\n".utf8))
        let found = try #require(try breaks())
        #expect(found.file == path(3) && found.line == 3 && found.problem == .notARecord)
    }

    @Test func aBeginningNeedsADigest() throws {
        let forged = AuditRecord(sequence: 3, event: denied(), previous: nil).line
        var verifier = AuditVerifier(allowsLaterBeginning: true)
        #expect(throws: AuditVerifier.Break(line: 1, problem: .chain)) { try verifier.consume(forged) }
    }

    @Test func nothingIsIntact() throws {
        let empty = ScratchDirectory()
        let verification = try TrailVerification(directory: empty.path)
        #expect(verification.broken == nil && verification.files.isEmpty)
    }
}
