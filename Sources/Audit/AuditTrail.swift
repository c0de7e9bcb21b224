public import EgressCore
public import NetPrimitives

/// The audit files that a daemon writes: one chain over a directory of files that are neither too long nor too old.
/// Confined to one thread.
///
/// Records go to `audit.jsonl`. When it is over a limit it is named after its first record
/// (`audit-00000000000000000042.jsonl`), and a new `audit.jsonl` carries on: its first record has the next number, and
/// its `prev` is the digest of the last line before. There is nothing beside these files, so there is no moment at
/// which a crash could lose the thread:
///
///     what happens                               a crash then leaves           opened again, the trail goes on
///     write "record 99⏎"                         a line that may be torn       in audit.jsonl, behind the torn line
///     rename audit.jsonl → audit-…42.jsonl       no audit.jsonl                behind the end of audit-…42.jsonl
///     create audit.jsonl                         an empty one                  the same
///     write "record 100⏎"                        a first line that is torn     behind both
///
/// Recording keeps the promises of ``AuditLog``. Where a file cannot be renamed or created, records go on into the one
/// that is open, and rotation is tried again when something is written next.
public final class AuditTrail {
    /// When a file gives way to the next, and how many are kept.
    public struct Limits: Hashable, Sendable {
        /// A file this long is followed by another, 64 MiB if not said otherwise; 0 for any length. It may grow past
        /// it by what is written at once: 32 KiB, after a full disk up to 1 MiB.
        public var maximumFileBytes: UInt64 = 64 << 20
        /// A file is followed by another when its first record is this old, a day if not said otherwise; 0 for any
        /// age.
        public var maximumFileAgeSeconds: Int64 = 86_400
        /// How many files are kept, the current one among them: 32 if not said otherwise; 0 for all of them. At least
        /// 2 are, since an empty current file carries on what the one before holds.
        public var maximumFiles: Int = 32

        /// The limits that hold if nothing else is said.
        public init() {}
    }

    /// The directory.
    public let directory: String
    /// The limits. A change counts from the next write on.
    public var limits: Limits

    private let files: TrailDirectory
    private let log: AuditLog
    /// Why the last rotation or removal failed.
    private var upkeepFailure: AuditError?

    /// Opens the trail in `directory`, which is created with mode 0700 if it does not exist, and continues what is
    /// there. The directory is locked as long as the trail is open. Files are reached by no symbolic link, and created
    /// with mode 0600.
    public convenience init(directory: String, limits: Limits = Limits()) throws(AuditError) {
        try self.init(directory: directory, limits: limits, bufferLimit: AuditLog.bufferLimit)
    }

    init(directory: String, limits: Limits, bufferLimit: Int) throws(AuditError) {
        let files = try TrailDirectory(creating: directory)
        try files.lock()
        let current = try files.currentFile(.ifMissing)
        let tail = try LogTail(of: current.contents) { () throws(AuditError) in
            try files.tail(ofRotated: try files.rotatedFiles()[...])
        }
        log = try AuditLog(file: current, behind: tail, bufferLimit: bufferLimit)
        self.directory = directory
        self.limits = limits
        self.files = files
        removeOldFiles()
    }

    /// Records that could not be written and never will be, since the trail was opened.
    public var lostRecords: UInt64 { log.lostRecords }

    /// The number of the last record; 0 before the first.
    public var lastSequence: UInt64 { log.lastSequence }

    /// Why the last write, rotation or removal failed; `nil` when none did.
    public var lastFailure: AuditError? { log.lastFailure ?? upkeepFailure }

    /// Is given the `audit.lost` records, which the trail writes by itself: who hands on what ``append(_:)`` returns
    /// hands on these as well, and has every number.
    public var onLossRecord: ((AuditEntry) -> Void)? {
        get { log.onLossRecord }
        set { log.onLossRecord = newValue }
    }

    /// Records `event`, and gives its line; `nil` when it is lost. Written when 32 KiB have gathered, or at the next
    /// ``flush(now:)``.
    @discardableResult
    public func append(_ event: AuditEvent) -> AuditEntry? {
        if log.writeIfMuchHasGathered() { rotateIfDue(now: event.time) }
        return log.append(event)
    }

    /// Writes what has gathered, and rotates the file if it is time. Whatever cannot be written is kept and tried
    /// again the next time.
    public func flush(now: WallTime) {
        log.flush()
        rotateIfDue(now: now)
    }

    /// Writes what has gathered, closes the file and lets others open the trail. Nothing is recorded afterwards.
    public func close() {
        log.close()
        files.unlock()
    }

    /// A file that is not complete stays: its last line is completed, or attested, before anything follows.
    private func rotateIfDue(now: WallTime) {
        guard log.isComplete, let first = log.firstRecord, isDue(firstTime: first.time, now: now) else { return }
        do {
            try files.setAside(log.fileIdentity, firstSequence: first.sequence)
            log.goOn(in: try files.currentFile(.always))
            upkeepFailure = nil
        } catch {
            upkeepFailure = error
            return
        }
        removeOldFiles()
    }

    private func isDue(firstTime: WallTime, now: WallTime) -> Bool {
        if limits.maximumFileBytes > 0, log.fileBytes >= limits.maximumFileBytes { return true }
        let age = limits.maximumFileAgeSeconds
        return age > 0 && firstTime.advanced(bySeconds: age) <= now
    }

    private func removeOldFiles() {
        guard limits.maximumFiles > 0 else { return }
        let kept = max(limits.maximumFiles, 2) - 1
        do {
            for number in try files.rotatedFiles().dropLast(kept) { try files.remove(rotated: number) }
        } catch {
            upkeepFailure = error
        }
    }

    /// Whether a file of this name, in a trail's directory, is the trail's.
    public static func includes(fileNamed name: String) -> Bool { TrailFileName(name) != nil }
}
