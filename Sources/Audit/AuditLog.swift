public import EgressCore
import NetPrimitives

/// The audit file that a process writes: append-only, one record a line, every record tied to what stands before it.
/// Confined to one event loop.
///
/// Recording never fails and never waits for a reader. What cannot be written (the disk is full) is kept up to a
/// bound; beyond it records are counted, and an `audit.lost` record says how many as soon as writing works again. A
/// lost record takes no sequence number, and a line that was written in part is completed before anything follows, so
/// the chain holds through all of it.
public final class AuditLog {
    /// The file.
    public let path: String
    /// Records that could not be written and never will be, since the log was opened.
    public private(set) var lostRecords: UInt64 = 0
    /// Why the last write failed; `nil` when it did not.
    public private(set) var lastFailure: AuditError?

    /// Is given the `audit.lost` records, which nobody else has a part in.
    var onLossRecord: ((AuditEntry) -> Void)?
    /// The number of the last record.
    private(set) var lastSequence: UInt64
    /// The first record of the file.
    private(set) var firstRecord: (sequence: UInt64, time: WallTime)?

    /// `nil` once the log is closed.
    private var file: LogFile?
    private var chain: LineChain
    private var buffer: [UInt8] = []
    /// Whether the file's last line is none, and no `audit.lost` record attests it yet.
    private var endsTorn: Bool
    /// Lost records that no `audit.lost` record has told of yet.
    private var untold: UInt64
    private var untoldSince: WallTime?
    private let bufferLimit: Int
    private let writeThreshold: Int

    /// What is kept in memory while nothing can be written.
    static let bufferLimit = 1 << 20

    /// Opens `path`, or creates it with mode 0600; symbolic links are not followed. A file that exists is continued.
    /// When a crash cut off its last line, the torn line is kept, ended, and followed by an `audit.lost` record. The
    /// file is locked as long as the log is open, so that two writers cannot tangle the chain.
    public convenience init(path: String) throws(AuditError) {
        try self.init(path: path, bufferLimit: Self.bufferLimit)
    }

    convenience init(path: String, bufferLimit: Int) throws(AuditError) {
        let file = try LogFile(path: path)
        let tail = try LogTail(of: file.contents)
        try self.init(file: file, behind: tail, bufferLimit: bufferLimit)
    }

    /// Continues `file` behind `tail`: its own end, or that of what it continues when there is no record in it.
    init(file: LogFile, behind tail: LogTail, bufferLimit: Int) throws(AuditError) {
        firstRecord = try file.contents.firstRecord(from: 0).map { ($0.record.sequence, $0.record.time) }
        if file.size > 0, tail.endsInsideLine { buffer = [UInt8(ascii: "\n")] }
        path = file.path
        self.file = file
        self.bufferLimit = bufferLimit
        writeThreshold = min(32 << 10, bufferLimit)
        chain = tail.chain
        lastSequence = tail.lastSequence
        untold = tail.tornLines
        endsTorn = tail.tornLines > 0
        buffer.reserveCapacity(writeThreshold + 4096)
    }

    deinit { close() }

    /// Records `event`, and gives its line; `nil` when it is lost. Written when 32 KiB have gathered, or at the next
    /// ``flush()``.
    @discardableResult
    public func append(_ event: AuditEvent) -> AuditEntry? {
        writeIfMuchHasGathered()
        guard file != nil, buffer.count < bufferLimit else {
            lose(event)
            return nil
        }
        tellOfLoss(at: event.time)
        return add(event)
    }

    /// Writes what has gathered. Whatever cannot be written is kept and tried again the next time.
    public func flush() {
        guard file != nil else { return }
        write()
        guard buffer.isEmpty, let untoldSince else { return }
        tellOfLoss(at: untoldSince)
        write()
    }

    /// Writes what has gathered and closes the file. Nothing is recorded afterwards.
    public func close() {
        guard file != nil else { return }
        flush()
        let newline = UInt8(ascii: "\n")
        lostRecords += UInt64(buffer.count { $0 == newline })
        buffer = []
        file = nil
    }

    /// Writes when 32 KiB have gathered; gives whether it did.
    @discardableResult
    func writeIfMuchHasGathered() -> Bool {
        guard buffer.count >= writeThreshold else { return false }
        write()
        return true
    }

    private func add(_ event: AuditEvent) -> AuditEntry {
        lastSequence += 1
        let line = AuditRecord(sequence: lastSequence, event: event, previous: chain.digest).line
        if firstRecord == nil { firstRecord = (lastSequence, event.time) }
        endsTorn = false
        chain.follow(record: line)
        buffer += line
        buffer.append(UInt8(ascii: "\n"))
        return AuditEntry(sequence: lastSequence, line: line)
    }

    private func lose(_ event: AuditEvent) {
        lostRecords += 1
        untold += event.weightWhenLost
        untoldSince = event.time
    }

    private func tellOfLoss(at time: WallTime) {
        guard untold > 0 else { return }
        var event = AuditEvent(.auditLost, time: time, sandbox: "")
        event.count = untold
        untold = 0
        untoldSince = nil
        let entry = add(event)
        onLossRecord?(entry)
    }

    private func write() {
        guard let (written, failure) = file?.append(buffer) else { return }
        lastFailure = failure
        if failure == nil {
            buffer.removeAll(keepingCapacity: true)
        } else {
            buffer.removeFirst(written)
        }
    }
}

/// Rotation.
extension AuditLog {
    /// How long the file is; what waits to be written is not counted.
    var fileBytes: UInt64 { file?.size ?? 0 }

    /// What tells the file from others; `nil` once the log is closed.
    var fileIdentity: FileIdentity? { file?.identity }

    /// Whether the file is complete: all is written, and its end is a record.
    var isComplete: Bool { file != nil && buffer.isEmpty && !endsTorn }

    /// Closes the file, which must be complete, and goes on with `next`, which must be empty. The chain carries on.
    func goOn(in next: LogFile) {
        precondition(isComplete && next.size == 0)
        file = next
        firstRecord = nil
    }
}
