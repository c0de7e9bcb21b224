import EgressCore
import Foundation
import Glibc
import NetPrimitives
import Testing

@testable import Audit

/// The verifier's account of a whole file.
func verify(_ bytes: [UInt8]) throws -> AuditVerifier {
    var verifier = AuditVerifier()
    var rest = bytes[...]
    while let newline = rest.firstIndex(of: UInt8(ascii: "\n")) {
        try verifier.consume(rest[..<newline])
        rest = rest[(newline + 1)...]
    }
    try verifier.finish(partial: rest)
    return verifier
}

@Suite struct AuditLogTests {
    private let scratch = ScratchDirectory()
    private var path: String { scratch.file("audit.jsonl") }

    private func write(_ count: Int, bufferLimit: Int = 1 << 20) throws {
        let log = try AuditLog(path: path, bufferLimit: bufferLimit)
        for _ in 0..<count { log.append(denied()) }
        log.close()
        #expect(log.lostRecords == 0)
    }

    @Test func startsAndContinuesAFile() throws {
        try write(3)
        var status = stat()
        #expect(stat(path, &status) == 0 && status.st_mode & 0o777 == 0o600)
        #expect(try lines(path)[0].hasSuffix(#""prev":null}"#))
        try write(2)
        let verified = try verify(contents(path))
        #expect(verified.records == 5 && verified.tornLines == 0 && verified.lost == 0)
        #expect(try lines(path).enumerated().allSatisfy { $1.hasPrefix("{\"seq\":\($0 + 1),") })
    }

    @Test func chainIsTheDigestOfTheLineBefore() throws {
        try write(2)
        // Computed apart with: printf '%s' "$(head -1 audit.jsonl)" | sha256sum
        let digest = "c85226b353d8509d9175357267f915a43ea0378c123f7e4241a75837d308421e"
        let second = try AuditLine(parsing: Array(try lines(path)[1].utf8))
        #expect(second.previous?.description == digest)
    }

    @Test func writesWhenMuchHasGatheredOrWhenAsked() throws {
        let log = try AuditLog(path: path)
        log.append(denied())
        #expect(try contents(path).isEmpty)
        log.flush()
        #expect(try lines(path).count == 1)
        for _ in 0..<1_000 { log.append(denied()) }
        #expect(try contents(path).count > 32 << 10)
        log.close()
        #expect(try verify(contents(path)).records == 1_001)
    }

    @Test func findsTheEndOfALongFile() throws {
        try write(3_000)
        try write(1)
        #expect(try verify(contents(path)).records == 3_001)
    }

    @Test func continuesBehindATornLine() throws {
        try write(3)
        let whole = try contents(path)
        let lastLine = try #require(whole.dropLast().lastIndex(of: UInt8(ascii: "\n"))) + 1
        for cut in stride(from: lastLine + 1, to: whole.count, by: 7) {
            try overwrite(path, with: Array(whole[..<cut]))
            #expect(try verify(contents(path)).records == 2)
            try write(2)
            let verified = try verify(contents(path))
            #expect(verified.records == 5 && verified.tornLines == 1 && verified.lost == 1)
            #expect(try contents(path).starts(with: whole[..<cut]))
            #expect(
                try lines(path)[3].contains(
                    #""seq":3,"ts":"2026-11-23T00:41:07.123456Z","event":"audit.lost","count":1"#
                )
            )
        }
    }

    @Test func continuesBehindTwoCrashesAndATornFirstLine() throws {
        try overwrite(path, with: Array("{\"se".utf8))
        try write(1)
        #expect(try verify(contents(path)).records == 2)
        try overwrite(path, with: try contents(path) + Array("{\"seq\":3,\n{\"seq".utf8))
        try write(1)
        let verified = try verify(contents(path))
        #expect(verified.records == 4 && verified.tornLines == 3 && verified.lost == 3)
    }

    @Test func keepsTheTornLineAttested() throws {
        try write(2)
        try overwrite(path, with: try contents(path) + Array("{\"seq\":3,\"ts\":\"20".utf8))
        try write(1)
        let bytes = try contents(path)
        for index in bytes.indices.dropLast(400) {
            var changed = bytes
            changed[index] ^= 1
            #expect(throws: AuditVerifier.Break.self) { try verify(changed) }
        }
    }

    @Test func leavesTheFilesOfOthersAlone() throws {
        for text in ["alias ll='ls -l'\n", "x", "{}", "{\"sex\":1}\n", String(repeating: "line\n", count: 400_000)] {
            try overwrite(path, with: Array(text.utf8))
            #expect(throws: AuditError(path: path, problem: .notAnAuditLog)) { try AuditLog(path: path) }
            #expect(try contents(path) == Array(text.utf8))
        }
    }

    @Test func refusesWhatIsNoFileOfItsOwn() throws {
        #expect(symlink(scratch.file("elsewhere"), path) == 0)
        #expect(throws: AuditError(path: path, problem: .system(operation: "open", errno: ELOOP))) {
            try AuditLog(path: path)
        }
        #expect(throws: AuditError(path: "/dev/full", problem: .notRegular)) { try AuditLog(path: "/dev/full") }
        #expect(throws: AuditError.self) { try AuditLog(path: scratch.path) }
        #expect(mkfifo(scratch.file("pipe"), 0o600) == 0)
        #expect(throws: AuditError.self) { try AuditLog(path: scratch.file("pipe")) }
        let missing = "\(scratch.path)/missing/audit.jsonl"
        let error = #expect(throws: AuditError.self) { try AuditLog(path: missing) }
        #expect(error?.description == "cannot open audit file \(missing): No such file or directory")
    }

    @Test func admitsOneWriter() throws {
        let log = try AuditLog(path: path)
        #expect(throws: AuditError(path: path, problem: .inUse)) { try AuditLog(path: path) }
        log.close()
        try write(1)
    }

    @Test func ignoresWhatComesAfterClosing() throws {
        let log = try AuditLog(path: path)
        log.close()
        log.append(denied())
        log.flush()
        log.close()
        #expect(try contents(path).isEmpty)
        #expect(log.lostRecords == 1)
    }

    /// A record that tells of a loss, when it is lost itself, is not one record less but as many as it told of.
    @Test func countsWhatALostLossTold() throws {
        let log = try AuditLog(path: path, bufferLimit: 0)
        var loss = AuditEvent(.auditLost, time: sampleTime, sandbox: "s")
        loss.count = 5
        log.append(loss)
        log.append(denied())
        log.flush()
        #expect(try verify(contents(path)).lost == 6)
        #expect(log.lostRecords == 2)
    }

    /// The size limit of the process stands for a full disk: it cuts a write in the middle of a line, then refuses.
    @Test func outlivesAFullDisk() async {
        await #expect(processExitsWith: .success) {
            signal(SIGXFSZ, SIG_IGN)
            let scratch = ScratchDirectory()
            let path = scratch.file("audit.jsonl")
            let log = try AuditLog(path: path, bufferLimit: 64 << 10)
            func limit(_ bytes: rlim_t) {
                var limit = rlimit(rlim_cur: bytes, rlim_max: rlim_t.max)
                #expect(setrlimit(__rlimit_resource_t(RLIMIT_FSIZE.rawValue), &limit) == 0)
            }
            limit(100_001)
            for _ in 0..<2_000 { log.append(denied()) }
            log.flush()
            #expect(log.lostRecords > 0 && log.lastFailure?.problem == .system(operation: "write", errno: EFBIG))
            #expect(try contents(path).count == 100_001)
            let lost = log.lostRecords
            limit(rlim_t.max)
            log.flush()
            #expect(log.lastFailure == nil && log.lostRecords == lost)
            log.append(denied())
            log.close()
            let verified = try verify(contents(path))
            #expect(verified.lost == lost && verified.tornLines == 0)
            #expect(verified.records == 2_000 - lost + 2)
        }
    }
}
