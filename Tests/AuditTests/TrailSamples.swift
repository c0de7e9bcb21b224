import Audit
import Crypto
import EgressCore
import Foundation
import NetPrimitives
import Testing

/// The time `seconds` after the sample time.
func later(_ seconds: Int64) -> WallTime { sampleTime.advanced(bySeconds: seconds) }

func denied(_ host: String = "evil.example", at time: WallTime, sandbox: String = "sbx-1") -> AuditEvent {
    var event = denied(host)
    event.time = time
    event.sandbox = sandbox
    return event
}

func limits(bytes: UInt64 = 0, age: Int64 = 0, files: Int = 0) -> AuditTrail.Limits {
    var limits = AuditTrail.Limits()
    limits.maximumFileBytes = bytes
    limits.maximumFileAgeSeconds = age
    limits.maximumFiles = files
    return limits
}

/// What an independent reading of the files of a directory found: another JSON parser, another reckoning of the chain.
struct TrailFiles {
    /// The names, in the order of the chain.
    var names: [String] = []
    /// The numbers of the records, file by file.
    var sequences: [[UInt64]] = []
    /// What the records before them say they stand behind, the first of all of them.
    var firstPrevious: String?
    /// Lines that are no records.
    var torn = 0

    var all: [UInt64] { sequences.flatMap { $0 } }

    /// Reads the files, and checks every `prev` but the first.
    init(in directory: String) throws {
        let present = try FileManager.default.contentsOfDirectory(atPath: directory)
        // A hyphen sorts before a dot: the current file is the last one.
        names = present.filter { $0.hasPrefix("audit") }.sorted()
        var covered: Data?
        for name in names {
            sequences.append([])
            var lines = try Data(contentsOf: URL(filePath: "\(directory)/\(name)")).split(
                separator: UInt8(ascii: "\n"),
                omittingEmptySubsequences: false
            )
            if lines.last?.isEmpty == true { lines.removeLast() }
            for line in lines {
                guard let record = try? JSONSerialization.jsonObject(with: Data(line)) as? [String: Any] else {
                    torn += 1
                    covered = covered.map { $0 + Data([0x0A]) + line } ?? Data(line)
                    continue
                }
                let previous = record["prev"] as? String
                if all.isEmpty, covered == nil {
                    firstPrevious = previous
                } else {
                    let digest = SHA256.hash(data: covered ?? Data()).map { String(format: "%02x", $0) }.joined()
                    #expect(previous == digest, "\(name): \(String(decoding: line, as: UTF8.self))")
                }
                sequences[sequences.count - 1].append(try #require(record["seq"] as? NSNumber).uint64Value)
                covered = Data(line)
            }
        }
        let first = all.first ?? 1
        #expect(all == Array(first..<(first + UInt64(all.count))))
    }
}
