import EgressCore
import Foundation
import Glibc
import NetPrimitives
import Testing

@testable import Audit

@Suite struct AuditArchiveTests {
    private let scratch = ScratchDirectory()
    private var archive: AuditArchive { AuditArchive(directory: scratch.path) }
    private static let total: UInt64 = 1_200

    /// 1,200 records, a minute apart, of two sandboxes, in files of about 200 records.
    init() throws {
        let trail = try AuditTrail(directory: scratch.path, limits: limits(bytes: 65_000))
        for number in 1...Self.total {
            let sandbox = number % 10 == 0 ? "rare" : "sbx-1"
            trail.append(denied("h\(number).example", at: later(Int64(number) * 60), sandbox: sandbox))
            if number % 25 == 0 { trail.flush(now: later(Int64(number) * 60)) }
        }
        trail.close()
        #expect(try TrailFiles(in: scratch.path).names.count > 5)
    }

    private func sequences(_ page: AuditArchive.Page) throws -> [UInt64] {
        for entry in page.entries {
            #expect(try AuditLine(parsing: entry.line).sequence == entry.sequence)
        }
        return page.entries.map(\.sequence)
    }

    /// All pages, one after the other.
    private func pages(_ page: (UInt64?) throws -> AuditArchive.Page) throws -> (sequences: [UInt64], count: Int) {
        var found: [UInt64] = []
        var cursor: UInt64?
        var count = 0
        repeat {
            let part = try page(cursor)
            found += try sequences(part)
            cursor = part.next
            count += 1
        } while cursor != nil && count < 10_000
        return (found, count)
    }

    @Test(arguments: [30, 599, 1_200, 1_201])
    func pagesCoverEverything(limit: Int) throws {
        let up = try pages { try archive.query(AuditQuery(), after: $0, limit: limit) }
        #expect(up.sequences == Array(1...Self.total))
        #expect(up.count == (Int(Self.total) + limit - 1) / limit)
        let down = try pages { try archive.latest(AuditQuery(), before: $0, limit: limit) }
        #expect(down.sequences == (1...Self.total).reversed())
        #expect(down.count == up.count)
    }

    @Test func anyCursorWorks() throws {
        for cursor in stride(from: 0, through: Self.total + 5, by: 31) {
            let up = try archive.query(AuditQuery(), after: cursor, limit: 3)
            #expect(try sequences(up) == (1...3).map { cursor + $0 }.filter { $0 <= Self.total })
            let down = try archive.latest(AuditQuery(), before: cursor, limit: 3)
            let newest = min(max(cursor, 1) - 1, Self.total)
            #expect(try sequences(down) == (0..<min(3, newest)).map { newest - $0 })
        }
        #expect(try archive.query(AuditQuery(), after: .max, limit: 3).entries.isEmpty)
        #expect(try sequences(try archive.latest(AuditQuery(), before: .max, limit: 1)) == [Self.total])
    }

    @Test func filters() throws {
        let rare = AuditQuery(sandbox: "rare")
        let wanted = (1...Self.total).filter { $0 % 10 == 0 }
        #expect(try pages { try archive.query(rare, after: $0, limit: 30) }.sequences == wanted)
        #expect(try pages { try archive.latest(rare, before: $0, limit: 30) }.sequences == wanted.reversed())
        let since = AuditQuery(sandbox: "rare", since: later(900 * 60))
        #expect(try pages { try archive.query(since, after: $0, limit: 9) }.sequences == wanted.filter { $0 >= 900 })
        #expect(
            try pages { try archive.latest(since, before: $0, limit: 9) }.sequences
                == wanted.filter { $0 >= 900 }.reversed()
        )
        let page = try archive.query(AuditQuery(host: Glob("h77.example")), limit: 5)
        #expect(try sequences(page) == [77])
        #expect(page.next == nil && page.lastExamined == Self.total)
    }

    @Test func looksAtSoManyAtMost() throws {
        let none = AuditQuery(sandbox: "none")
        let page = try archive.query(none, after: 10, limit: 5, examining: 100)
        #expect(page.entries.isEmpty && page.next == 110)
        #expect(try archive.latest(none, before: 110, limit: 5, examining: 100).next == 10)
        #expect(try archive.query(none, after: 1_100, limit: 5, examining: 100).next == nil)
        let all = try pages { try archive.query(AuditQuery(sandbox: "rare"), after: $0, limit: 5, examining: 33) }
        #expect(all.sequences.count == 120)
    }

    /// Records that are out of order by a little, as those of several threads are, are found by their own time.
    @Test func timesNeedNotBeInOrder() throws {
        let scratch = ScratchDirectory()
        let trail = try AuditTrail(directory: scratch.path, limits: limits(bytes: 40_000))
        var times: [WallTime] = []
        for number in 0..<2_000 {
            times.append(later(Int64(number) - Int64(number * 7_919 % 500)))
            trail.append(denied(at: times[number]))
        }
        trail.close()
        for second in stride(from: 0, to: 2_000, by: 400) {
            let query = AuditQuery(since: later(Int64(second)))
            let wanted = times.indices.filter { times[$0] >= later(Int64(second)) }.map { UInt64($0 + 1) }
            let archive = AuditArchive(directory: scratch.path)
            #expect(try sequences(archive.query(query, limit: 5_000)) == wanted)
            #expect(try sequences(archive.latest(query, limit: 5_000)) == wanted.reversed())
        }
    }

    /// Files that a cursor or a time rules out are not so much as opened: here, they could not be read.
    @Test func readsNoFileInVain() throws {
        let files = try TrailFiles(in: scratch.path)
        for name in files.names.prefix(3) {
            #expect(unlink(scratch.file(name)) == 0 && symlink("nowhere", scratch.file(name)) == 0)
        }
        let later = try #require(files.sequences[4].first)
        #expect(try archive.query(AuditQuery(), after: later, limit: 10).entries.count == 10)
        #expect(try archive.latest(AuditQuery(), limit: 100).entries.count == 100)
        #expect(throws: AuditError.self) { try archive.query(AuditQuery(), limit: 1) }
        #expect(throws: AuditError.self) { try archive.latest(AuditQuery(), limit: 1_200) }
    }

    @Test func passesOverFilesThatWereRemoved() throws {
        let files = try TrailFiles(in: scratch.path)
        #expect(unlink(scratch.file(files.names[0])) == 0 && unlink(scratch.file(files.names[2])) == 0)
        let left = files.sequences.enumerated().filter { $0.offset != 0 && $0.offset != 2 }.flatMap(\.element)
        #expect(try pages { try archive.query(AuditQuery(), after: $0, limit: 90) }.sequences == left)
        #expect(try pages { try archive.latest(AuditQuery(), before: $0, limit: 90) }.sequences == left.reversed())
    }

    @Test func readsTornLinesAndRecordsWithoutANewline() throws {
        let path = scratch.file("audit.jsonl")
        let whole = try contents(path)
        #expect(whole.count > 1_000)
        try overwrite(path, with: whole.dropLast())
        #expect(try sequences(archive.latest(AuditQuery(), limit: 1)) == [Self.total])
        #expect(try sequences(archive.query(AuditQuery(), after: Self.total - 1, limit: 9)) == [Self.total])
        try overwrite(path, with: whole.dropLast(2))
        #expect(try sequences(archive.latest(AuditQuery(), limit: 1)) == [Self.total - 1])
        #expect(try archive.query(AuditQuery(), after: Self.total - 1, limit: 9).entries.isEmpty)
        try AuditTrail(directory: scratch.path, limits: limits()).close()
        let trail = try AuditTrail(directory: scratch.path, limits: limits())
        trail.append(denied())
        trail.close()
        #expect(try pages { try archive.query(AuditQuery(), after: $0, limit: 90) }.sequences.last == Self.total + 1)
    }

    @Test func anEmptyDirectoryHasNoRecords() throws {
        let empty = AuditArchive(directory: ScratchDirectory().path)
        #expect(throws: AuditError.self) { try empty.query(AuditQuery(), limit: 1) }
        let scratch = ScratchDirectory()
        let archive = AuditArchive(directory: scratch.path)
        for _ in 0..<2 {
            #expect(try archive.query(AuditQuery(), limit: 1) == AuditArchive.Page())
            #expect(try archive.latest(AuditQuery(), before: 5, limit: 1) == AuditArchive.Page())
            try overwrite(scratch.file("audit.jsonl"), with: [])
        }
    }
}

@Suite struct LogBytesTests {
    @Test func boundariesAreExactAmongLongAndTornLines() throws {
        let scratch = ScratchDirectory()
        var text = ""
        var offsets: [(sequence: UInt64, offset: Int)] = []
        for sequence in 1...400 as ClosedRange<UInt64> {
            offsets.append((sequence, text.utf8.count))
            var event = denied(String(repeating: "é", count: Int(sequence * 37 % 500)))
            event.sandbox = String(repeating: "s", count: Int(sequence * 11 % 200))
            let line = AuditRecord(sequence: sequence, event: event, previous: nil).line
            text += String(decoding: line, as: UTF8.self) + "\n"
            if sequence % 50 == 0 { text += String(repeating: "torn ", count: 30_000) + "\n" }
        }
        try overwrite(scratch.file("log"), with: Array(text.utf8))
        let reader = try AuditReader(path: scratch.file("log"))
        for (sequence, offset) in offsets {
            let range = try reader.contents.boundary { $0.sequence < sequence }
            #expect(range.lowerBound <= offset && offset <= range.upperBound)
            let (found, record) = try #require(try reader.contents.firstRecord(from: offset))
            #expect(found == offset && record.sequence == sequence)
        }
        var lines = try ReverseLines(of: reader.contents, before: text.utf8.count)
        var reversed: [String] = []
        while let line = try lines.next() { reversed.append(String(decoding: line, as: UTF8.self)) }
        #expect(reversed == text.split(separator: "\n").reversed().map(String.init))
    }
}
