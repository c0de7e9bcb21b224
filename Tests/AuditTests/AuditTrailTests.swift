import EgressCore
import Foundation
import Glibc
import NetPrimitives
import Testing

@testable import Audit

@Suite struct AuditTrailTests {
    private let scratch = ScratchDirectory()
    private var directory: String { scratch.file("trail") }

    private func path(_ name: String) -> String { "\(directory)/\(name)" }
    private let second = "audit-00000000000000000002.jsonl"
    private let first = "audit-00000000000000000001.jsonl"

    /// Opens the trail, records `count` events one second apart, each in a write of its own, and closes it.
    private func write(_ count: Int, _ limits: AuditTrail.Limits, at time: WallTime = sampleTime) throws {
        let trail = try AuditTrail(directory: directory, limits: limits)
        for number in 0..<count {
            let now = time.advanced(bySeconds: Int64(number))
            trail.append(denied(at: now))
            trail.flush(now: now)
        }
        trail.close()
        #expect(trail.lostRecords == 0 && trail.lastFailure == nil)
    }

    @Test func createsADirectoryForItsOwnerAlone() throws {
        try write(1, limits())
        var status = stat()
        #expect(stat(directory, &status) == 0 && status.st_mode & 0o777 == 0o700)
        #expect(stat(path("audit.jsonl"), &status) == 0 && status.st_mode & 0o777 == 0o600)
        #expect(try TrailFiles(in: directory).all == [1])
    }

    @Test func rotatesBySize() throws {
        let trail = try AuditTrail(directory: directory, limits: limits(bytes: 100_000))
        for _ in 0..<2_000 { trail.append(denied()) }
        trail.close()
        let files = try TrailFiles(in: directory)
        #expect(files.names.count > 4 && files.all == Array(1...2_000) && files.firstPrevious == nil)
        for (name, sequences) in zip(files.names, files.sequences).dropLast() {
            #expect(name == "audit-\(String(format: "%020llu", try #require(sequences.first))).jsonl")
            #expect((100_000..<140_000).contains(try contents(path(name)).count))
        }
        #expect(files.names.last == "audit.jsonl")
        let verification = try TrailVerification(directory: directory)
        #expect(verification.broken == nil && verification.verifier.records == 2_000)
        #expect(verification.verifier.beginning == nil)
        #expect(verification.files.map { URL(filePath: $0).lastPathComponent } == files.names)
    }

    @Test func rotatesByTheAgeOfTheFirstRecord() throws {
        let limits = limits(age: 60)
        let trail = try AuditTrail(directory: directory, limits: limits)
        trail.append(denied(at: later(0)))
        trail.flush(now: later(59))
        trail.append(denied(at: later(59)))
        trail.flush(now: later(59))
        #expect(try TrailFiles(in: directory).sequences == [[1, 2]])
        trail.close()
        // Known when the file is opened again, too.
        let again = try AuditTrail(directory: directory, limits: limits)
        again.append(denied(at: later(60)))
        again.flush(now: later(60))
        #expect(try TrailFiles(in: directory).sequences == [[1, 2, 3], []])
        // An empty file has no age.
        again.flush(now: later(10_000))
        again.append(denied(at: later(10_000)))
        again.flush(now: later(10_001))
        // A clock that was set back makes no file old.
        again.flush(now: later(-10_000))
        #expect(try TrailFiles(in: directory).sequences == [[1, 2, 3], [4]])
        again.flush(now: later(10_060))
        again.close()
        #expect(try TrailFiles(in: directory).sequences == [[1, 2, 3], [4], []])
    }

    @Test func noLimitMeansNoRotation() throws {
        try write(50, limits())
        #expect(try TrailFiles(in: directory).names == ["audit.jsonl"])
    }

    @Test func limitsMayChange() throws {
        let trail = try AuditTrail(directory: directory, limits: limits())
        trail.append(denied())
        trail.flush(now: sampleTime)
        trail.limits.maximumFileBytes = 1
        trail.flush(now: sampleTime)
        #expect(try TrailFiles(in: directory).names == [first, "audit.jsonl"])
    }

    @Test func givesTheLinesThatItWrites() throws {
        let trail = try AuditTrail(directory: directory, limits: limits(bytes: 1))
        var entries: [AuditEntry] = []
        for number in 1...3 {
            entries.append(try #require(trail.append(denied("h\(number).example"))))
            trail.flush(now: sampleTime)
            #expect(trail.lastSequence == UInt64(number))
        }
        trail.close()
        #expect(trail.append(denied()) == nil)
        #expect(entries.map(\.sequence) == [1, 2, 3])
        #expect(try AuditArchive(directory: directory).query(AuditQuery(), limit: 10).entries == entries)
    }

    // MARK: Retention

    @Test func keepsTheNewestFiles() throws {
        try write(6, limits(bytes: 1, files: 3))
        let files = try TrailFiles(in: directory)
        #expect(files.sequences == [[5], [6], []])
        let verification = try TrailVerification(directory: directory)
        #expect(verification.broken == nil && verification.verifier.records == 2)
        let beginning = try #require(verification.verifier.beginning)
        #expect(beginning.sequence == 5 && beginning.previous.description == files.firstPrevious)
        #expect(verification.verifier.summary.hasPrefix("chain intact, 2 records from 5 on, the first behind "))
        #expect(String(decoding: verification.report, as: UTF8.self).contains(#""begins":{"seq":5,"prev":""#))
        try write(1, limits())
        #expect(try TrailFiles(in: directory).sequences == [[5], [6], [7]])
        // Also when the limit was lowered since.
        try write(0, limits(files: 2))
        #expect(try TrailFiles(in: directory).sequences == [[6], [7]])
    }

    @Test func keepsWhatAnEmptyFileContinues() throws {
        for files in [1, 2] {
            try write(3, limits(bytes: 1, files: files))
            #expect(try TrailFiles(in: directory).names.count == 2)
        }
        #expect(try TrailFiles(in: directory).all == [6])
    }

    @Test func removesNothingElse() throws {
        try write(1, limits())
        let others = [
            "other.jsonl", "audit-1.jsonl", "audit-0000000000000000000x.jsonl", "audit-00000000000000000000.jsonl",
            "audit-99999999999999999999.jsonl", "audit-00000000000000000001.json", "audit.jsonl.1",
        ]
        for name in others { try overwrite(path(name), with: [0x0A]) }
        try write(9, limits(bytes: 1, files: 2))
        let present = Set(try FileManager.default.contentsOfDirectory(atPath: directory))
        #expect(present.isSuperset(of: others) && present.count == others.count + 2)
    }

    // MARK: Crashes

    @Test func continuesWhenTheFileWasRenamedAndNoneCreated() throws {
        try write(3, limits())
        #expect(rename(path("audit.jsonl"), path(first)) == 0)
        try write(2, limits())
        #expect(try TrailFiles(in: directory).sequences == [[1, 2, 3], [4, 5]])
        #expect(try TrailVerification(directory: directory).broken == nil)
    }

    @Test func continuesWhenTheNewFileIsEmpty() throws {
        try write(3, limits())
        #expect(rename(path("audit.jsonl"), path(first)) == 0)
        try overwrite(path("audit.jsonl"), with: [])
        try write(0, limits())
        try write(2, limits())
        #expect(try TrailFiles(in: directory).sequences == [[1, 2, 3], [4, 5]])
    }

    @Test func continuesBehindATornLastLine() throws {
        try write(2, limits(bytes: 1))
        try write(1, limits())
        try append("{\"seq\":4,\"ts\":\"20", to: "audit.jsonl")
        // The torn line is ended and attested before the file may be rotated.
        let trail = try AuditTrail(directory: directory, limits: limits(bytes: 1))
        var told: [UInt64] = []
        trail.onLossRecord = { told.append($0.sequence) }
        trail.flush(now: sampleTime)
        #expect(try TrailFiles(in: directory).sequences == [[1], [2], [3]])
        trail.append(denied())
        trail.flush(now: sampleTime)
        trail.close()
        let files = try TrailFiles(in: directory)
        #expect(files.sequences == [[1], [2], [3, 4, 5], []] && files.torn == 1 && told == [4])
        let verifier = try TrailVerification(directory: directory).verifier
        #expect(verifier.records == 5 && verifier.lost == 1 && verifier.tornLines == 1)
    }

    /// A power failure may cut off the end of a file that was renamed.
    @Test func continuesBehindATornLineInTheFileBefore() throws {
        try write(2, limits())
        for (tail, torn) in [("{\"seq\":3,\"ts", 1), ("{\"seq\":3,\"ts\n", 1), ("{\"seq\n{\"seq\":3", 2)] {
            let whole = try contents(path("audit.jsonl"))
            #expect(rename(path("audit.jsonl"), path(first)) == 0)
            try append(tail, to: first)
            let rotated = try contents(path(first))
            try write(1, limits())
            let files = try TrailFiles(in: directory)
            #expect(files.sequences == [[1, 2], [3, 4]] && files.torn == torn)
            #expect(try contents(path(first)) == rotated)
            let verification = try TrailVerification(directory: directory)
            #expect(verification.broken == nil && verification.verifier.tornLines == UInt64(torn))
            #expect(verification.verifier.lost == UInt64(torn))
            try overwrite(path("audit.jsonl"), with: whole)
            #expect(unlink(path(first)) == 0)
        }
    }

    @Test func continuesWhenTheFirstLineOfTheNewFileIsTorn() throws {
        try write(1, limits(bytes: 1))
        for tail in ["{", "{\"seq\":2,\"ts\":\"2026", "{\"seq\":2,\n{\"se"] {
            try overwrite(path("audit.jsonl"), with: Array(tail.utf8))
            try write(2, limits())
            let files = try TrailFiles(in: directory)
            #expect(files.sequences == [[1], [2, 3, 4]])
            let verification = try TrailVerification(directory: directory)
            #expect(verification.broken == nil && verification.verifier.lost == UInt64(files.torn))
            try write(1, limits(bytes: 1))
            #expect(try TrailFiles(in: directory).names == [first, second, "audit.jsonl"])
            #expect(unlink(path(second)) == 0)
        }
    }

    @Test func onlyTheNewlineOfARecordMayBeMissing() throws {
        try write(2, limits())
        #expect(truncate(path("audit.jsonl"), off_t(try contents(path("audit.jsonl")).count - 1)) == 0)
        try write(1, limits())
        #expect(try TrailFiles(in: directory).sequences == [[1, 2, 3]])
        #expect(truncate(path("audit.jsonl"), off_t(try contents(path("audit.jsonl")).count - 1)) == 0)
        #expect(rename(path("audit.jsonl"), path(first)) == 0)
        try write(1, limits())
        #expect(try TrailFiles(in: directory).sequences == [[1, 2, 3], [4]])
        let verification = try TrailVerification(directory: directory)
        #expect(verification.broken == nil && verification.verifier.tornLines == 0)
    }

    @Test func looksBeyondAFileThatAPowerFailureEmptied() throws {
        try write(1, limits(bytes: 1))
        #expect(rename(path("audit.jsonl"), path(second)) == 0)
        try write(2, limits(bytes: 1))
        #expect(try TrailFiles(in: directory).sequences == [[1], [2], [3], []])
    }

    /// A process that rotates after every other record is killed, wherever it happens to be.
    @Test func survivesBeingKilled() async throws {
        for round in 0..<8 {
            let delay = useconds_t(2_000 + round * 1_700)
            await #expect(processExitsWith: .signal(SIGKILL)) {
                [directory = directory as String, delay = delay as UInt32] in
                let trail = try AuditTrail(directory: directory, limits: limits(bytes: 500))
                Thread.detachNewThread {
                    usleep(delay)
                    kill(getpid(), SIGKILL)
                }
                while true {
                    trail.append(denied())
                    trail.flush(now: sampleTime)
                }
            }
            try write(1, limits())
        }
        let files = try TrailFiles(in: directory)
        let verification = try TrailVerification(directory: directory)
        #expect(verification.broken == nil && verification.verifier.lost == 0 && verification.files.count > 20)
        #expect(UInt64(files.all.count) == verification.verifier.records)
    }

    // MARK: Refusals

    @Test func carriesOnWhenTheFileCannotBeRenamed() throws {
        let trail = try AuditTrail(directory: directory, limits: limits(bytes: 1))
        try overwrite(path(first), with: Array("mine\n".utf8))
        for _ in 0..<3 {
            trail.append(denied())
            trail.flush(now: sampleTime)
        }
        #expect(
            trail.lastFailure?.description == "cannot rotate audit file \(path("audit.jsonl")): File exists"
        )
        #expect(try contents(path(first)) == Array("mine\n".utf8))
        #expect(unlink(path(first)) == 0)
        trail.flush(now: sampleTime)
        #expect(trail.lastFailure == nil && trail.lostRecords == 0)
        trail.close()
        #expect(try TrailFiles(in: directory).sequences == [[1, 2, 3], []])
    }

    @Test func doesNotRenameTheFileOfAnother() throws {
        let trail = try AuditTrail(directory: directory, limits: limits(bytes: 1))
        #expect(rename(path("audit.jsonl"), path("moved")) == 0)
        try overwrite(path("audit.jsonl"), with: Array("mine\n".utf8))
        trail.append(denied())
        trail.flush(now: sampleTime)
        #expect(trail.lastFailure?.problem == .system(operation: "rotate", errno: EEXIST))
        #expect(try contents(path("audit.jsonl")) == Array("mine\n".utf8))
        #expect(try lines(path("moved")).count == 1)
    }

    /// No descriptor is left for the new file: the one that was renamed goes on, until there is.
    @Test func carriesOnWhenNoFileCanBeCreated() async {
        await #expect(processExitsWith: .success) {
            let scratch = ScratchDirectory()
            let trail = try AuditTrail(directory: scratch.path, limits: limits(bytes: 1))
            func allow(_ descriptors: rlim_t) {
                var limit = rlimit(rlim_cur: descriptors, rlim_max: 4_096)
                #expect(setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0)
            }
            allow(3)
            for _ in 0..<3 {
                trail.append(denied())
                trail.flush(now: sampleTime)
            }
            #expect(trail.lastFailure?.problem == .system(operation: "open", errno: EMFILE))
            allow(1_024)
            let half = try TrailFiles(in: scratch.path)
            #expect(half.names == ["audit-00000000000000000001.jsonl"] && half.all == [1, 2, 3])
            #expect(try AuditArchive(directory: scratch.path).query(AuditQuery(), limit: 9).entries.count == 3)
            trail.append(denied())
            trail.flush(now: sampleTime)
            #expect(trail.lastFailure == nil)
            trail.append(denied())
            trail.close()
            #expect(try TrailFiles(in: scratch.path).sequences == [[1, 2, 3, 4], [5]])
        }
    }

    /// The size limit of the process stands for a full disk, as in the tests of the log.
    @Test func outlivesAFullDisk() async {
        await #expect(processExitsWith: .success) {
            signal(SIGXFSZ, SIG_IGN)
            let scratch = ScratchDirectory()
            let trail = try AuditTrail(
                directory: scratch.path,
                limits: limits(bytes: 60_000),
                bufferLimit: 64 << 10
            )
            var told: [AuditEntry] = []
            trail.onLossRecord = { told.append($0) }
            func limit(_ bytes: rlim_t) {
                var limit = rlimit(rlim_cur: bytes, rlim_max: rlim_t.max)
                #expect(setrlimit(__rlimit_resource_t(RLIMIT_FSIZE.rawValue), &limit) == 0)
            }
            for _ in 0..<400 { trail.append(denied()) }
            trail.flush(now: sampleTime)
            #expect(try TrailFiles(in: scratch.path).names.count == 3)
            limit(10_001)
            var recorded: UInt64 = 400
            for _ in 0..<2_000 where trail.append(denied()) != nil { recorded += 1 }
            trail.flush(now: sampleTime)
            #expect(trail.lastFailure?.problem == .system(operation: "write", errno: EFBIG))
            #expect(trail.lostRecords == 2_400 - recorded && trail.lostRecords > 0)
            limit(rlim_t.max)
            trail.flush(now: sampleTime)
            #expect(trail.lastFailure == nil)
            trail.append(denied())
            trail.close()
            let files = try TrailFiles(in: scratch.path)
            #expect(files.torn == 0 && UInt64(files.all.count) == recorded + 2 && told.count == 1)
            #expect(try AuditLine(parsing: told[0].line).count == trail.lostRecords)
            let verification = try TrailVerification(directory: scratch.path)
            #expect(verification.broken == nil && verification.verifier.lost == trail.lostRecords)
        }
    }

    @Test func admitsOneWriter() throws {
        let trail = try AuditTrail(directory: directory)
        let inUse = AuditError(path: path("audit.jsonl"), problem: .inUse)
        #expect(throws: inUse) { try AuditTrail(directory: directory) }
        #expect(throws: inUse) { try AuditLog(path: path("audit.jsonl")) }
        // Also in the moment between a file and the next.
        #expect(unlink(path("audit.jsonl")) == 0)
        #expect(throws: inUse) { try AuditTrail(directory: directory) }
        withExtendedLifetime(trail) {}
    }

    @Test func followsNoSymbolicLink() throws {
        try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
        let target = scratch.file("target")
        try overwrite(target, with: [])
        #expect(symlink(target, path("audit.jsonl")) == 0)
        let refused = AuditError(path: path("audit.jsonl"), problem: .system(operation: "open", errno: ELOOP))
        #expect(throws: refused) { try AuditTrail(directory: directory) }
        #expect(throws: refused) { try AuditTrailReader(directory: directory) }
        #expect(throws: refused) { try AuditArchive(directory: directory).query(AuditQuery(), limit: 1) }
        #expect(unlink(path("audit.jsonl")) == 0 && symlink(target, path(first)) == 0)
        #expect(throws: AuditError.self) { try AuditTrail(directory: directory) }
        #expect(unlink(path(first)) == 0 && unlink(path("audit.jsonl")) == 0)
        // A link that is put in the way later does not lead a rotation astray either.
        let trail = try AuditTrail(directory: directory, limits: limits(bytes: 1))
        #expect(symlink(target, path(first)) == 0)
        trail.append(denied())
        trail.flush(now: sampleTime)
        #expect(trail.lastFailure?.problem == .system(operation: "rotate", errno: EEXIST))
        #expect(try contents(target).isEmpty)
    }

    @Test func saysWhyADirectoryCannotBeUsed() throws {
        let missing = scratch.file("missing/trail")
        var error = #expect(throws: AuditError.self) { try AuditTrail(directory: missing) }
        #expect(error?.description == "cannot create audit directory \(missing): No such file or directory")
        let file = scratch.file("file")
        try overwrite(file, with: [])
        error = #expect(throws: AuditError.self) { try AuditTrail(directory: file) }
        #expect(error?.description == "cannot open audit directory \(file): Not a directory")
        error = #expect(throws: AuditError.self) { try AuditTrailReader(directory: missing) }
        #expect(error?.description == "cannot open audit directory \(missing): No such file or directory")
    }

    @Test func saysWhenADirectoryCannotBeWritten() async {
        await #expect(processExitsWith: .success) {
            let scratch = ScratchDirectory()
            #expect(chmod(scratch.path, 0o555) == 0)
            // Root may write anywhere.
            #expect(geteuid() != 0 || seteuid(65_534) == 0)
            var error = #expect(throws: AuditError.self) { try AuditTrail(directory: scratch.path) }
            let file = scratch.file("audit.jsonl")
            #expect(error?.description == "cannot open audit file \(file): Permission denied")
            error = #expect(throws: AuditError.self) { try AuditTrail(directory: scratch.file("trail")) }
            #expect(error?.description == "cannot create audit directory \(scratch.file("trail")): Permission denied")
            #expect(getuid() != 0 || seteuid(0) == 0)
        }
    }

    @Test func leavesTheFilesOfOthersAlone() throws {
        try write(1, limits(bytes: 1))
        let text = Array("alias ll='ls -l'\n".utf8)
        try overwrite(path(second), with: text)
        #expect(throws: AuditError(path: path(second), problem: .notAnAuditLog)) {
            try AuditTrail(directory: directory)
        }
        #expect(try contents(path(second)) == text)
    }

    private func append(_ text: String, to name: String) throws {
        try overwrite(path(name), with: try contents(path(name)) + Array(text.utf8))
    }
}
