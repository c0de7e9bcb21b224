import NetPrimitives

@testable import Sandboxes

extension FuzzTarget {
    /// A sandbox's record on disk.
    static let sandboxRecord = FuzzTarget(name: "sandbox-record") { bytes in
        guard let record = try? SandboxRecord(stored: bytes, file: "f") else { return }
        guard let stored = try? record.stored else { fatalError("a record that cannot be stored") }
        do {
            let again = try SandboxRecord(stored: stored, file: "again")
            require(again == record, "\(record) is read back as \(again)")
        } catch {
            fatalError("what was stored is not read: \(error)")
        }
    }
}
