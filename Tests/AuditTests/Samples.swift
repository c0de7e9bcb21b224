import Audit
import EgressCore
import EgressPolicy
import Foundation
import NetPrimitives

/// 2026-11-23T00:41:07.123456Z.
let sampleTime = WallTime(microseconds: 1_795_394_467_123_456)

func denied(
    _ host: String? = "evil.example",
    address: String? = "203.0.113.5",
    port: UInt16? = 443,
    layer: AuditEvent.Layer = .tlsSNI,
    reason: Reason = .default,
    rule: RuleReference? = nil,
    transport: UInt8? = 6,
    count: UInt64? = nil
) -> AuditEvent {
    var event = AuditEvent(layer == .dns ? .dnsDenied : .connectionDenied, time: sampleTime, sandbox: "sbx-1")
    event.layer = layer
    event.verdict = Verdict(.deny, reason, rule: rule)
    event.host = host
    event.address = address.flatMap { IPAddress($0) }
    event.port = port
    event.ipProtocol = transport
    event.policyRevision = 7
    event.count = count
    return event
}

func reference(_ source: RuleReference.Source, _ index: Int, _ target: Target) throws -> RuleReference {
    RuleReference(source: source, index: index, action: .deny, target: target)
}

/// A directory that is removed when the value is no longer used.
final class ScratchDirectory {
    let path: String

    init() {
        path = FileManager.default.temporaryDirectory.appending(path: "audit-\(UUID().uuidString)").path
        try! FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
    }

    deinit { try? FileManager.default.removeItem(atPath: path) }

    func file(_ name: String) -> String { "\(path)/\(name)" }
}

func contents(_ path: String) throws -> [UInt8] {
    Array(try Data(contentsOf: URL(filePath: path)))
}

func lines(_ path: String) throws -> [String] {
    String(decoding: try contents(path), as: UTF8.self).split(separator: "\n").map(String.init)
}

func overwrite(_ path: String, with bytes: [UInt8]) throws {
    try Data(bytes).write(to: URL(filePath: path))
}
