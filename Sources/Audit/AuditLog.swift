public import EgressCore
import Glibc
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

    private var descriptor: CInt
    private var chain: LineChain
    private var lastSequence: UInt64
    private var buffer: [UInt8] = []
    /// Lost records that no `audit.lost` record has told of yet.
    private var untold: UInt64
    private var untoldSince: WallTime?
    private let bufferLimit: Int
    private let writeThreshold: Int

    /// Opens `path`, or creates it with mode 0600; symbolic links are not followed. A file that exists is continued.
    /// When a crash cut off its last line, the torn line is kept, ended, and followed by an `audit.lost` record. The
    /// file is locked as long as the log is open, so that two writers cannot tangle the chain.
    public convenience init(path: String) throws(AuditError) {
        try self.init(path: path, bufferLimit: 1 << 20)
    }

    init(path: String, bufferLimit: Int) throws(AuditError) {
        let descriptor = try Self.open(path)
        let tail: LogTail
        do {
            tail = try LogTail(reading: descriptor, path: path)
        } catch {
            Glibc.close(descriptor)
            throw error
        }
        self.path = path
        self.descriptor = descriptor
        self.bufferLimit = bufferLimit
        writeThreshold = min(32 << 10, bufferLimit)
        chain = tail.chain
        lastSequence = tail.lastSequence
        untold = tail.tornLines
        if tail.endsInsideLine { buffer = [UInt8(ascii: "\n")] }
        buffer.reserveCapacity(writeThreshold + 4096)
    }

    deinit { close() }

    /// Records `event`. Written when 32 KiB have gathered, or at the next ``flush()``.
    public func append(_ event: AuditEvent) {
        if buffer.count >= writeThreshold { write() }
        guard descriptor >= 0, buffer.count < bufferLimit else {
            lose(event)
            return
        }
        tellOfLoss(at: event.time)
        add(event)
    }

    /// Writes what has gathered. Whatever cannot be written is kept and tried again the next time.
    public func flush() {
        write()
        guard buffer.isEmpty, let untoldSince else { return }
        tellOfLoss(at: untoldSince)
        write()
    }

    /// Writes what has gathered and closes the file. Nothing is recorded afterwards.
    public func close() {
        guard descriptor >= 0 else { return }
        flush()
        let newline = UInt8(ascii: "\n")
        lostRecords += UInt64(buffer.count { $0 == newline })
        buffer = []
        Glibc.close(descriptor)
        descriptor = -1
    }

    private func add(_ event: AuditEvent) {
        lastSequence += 1
        let line = AuditRecord(sequence: lastSequence, event: event, previous: chain.digest).line
        chain.follow(record: line)
        buffer += line
        buffer.append(UInt8(ascii: "\n"))
    }

    private func lose(_ event: AuditEvent) {
        lostRecords += 1
        untold += 1
        untoldSince = event.time
    }

    private func tellOfLoss(at time: WallTime) {
        guard untold > 0 else { return }
        var event = AuditEvent(.auditLost, time: time, sandbox: "")
        event.count = untold
        untold = 0
        untoldSince = nil
        add(event)
    }

    private func write() {
        var written = 0
        while written < buffer.count {
            let count = buffer[written...].withUnsafeBytes { Glibc.write(descriptor, $0.baseAddress, $0.count) }
            if count > 0 {
                written += count
                continue
            }
            let code = errno
            if count < 0, code == EINTR { continue }
            lastFailure = AuditError(path: path, problem: .system(operation: "write", errno: count < 0 ? code : ENOSPC))
            break
        }
        if written == buffer.count {
            lastFailure = nil
            buffer.removeAll(keepingCapacity: true)
        } else {
            buffer.removeFirst(written)
        }
    }

    private static func open(_ path: String) throws(AuditError) -> CInt {
        // O_NONBLOCK: opening somebody's pipe must not hang; it changes nothing for a regular file.
        let flags = O_RDWR | O_APPEND | O_CREAT | O_NOFOLLOW | O_CLOEXEC | O_NOCTTY | O_NONBLOCK
        let descriptor = Glibc.open(path, flags, 0o600)
        guard descriptor >= 0 else { throw .system("open", path) }
        do {
            try claim(descriptor, path)
            return descriptor
        } catch {
            Glibc.close(descriptor)
            throw error
        }
    }

    private static func claim(_ descriptor: CInt, _ path: String) throws(AuditError) {
        var status = stat()
        guard fstat(descriptor, &status) == 0 else { throw .system("inspect", path) }
        guard status.st_mode & S_IFMT == S_IFREG else { throw AuditError(path: path, problem: .notRegular) }
        guard flock(descriptor, LOCK_EX | LOCK_NB) == 0 else {
            throw errno == EWOULDBLOCK ? AuditError(path: path, problem: .inUse) : .system("lock", path)
        }
    }
}

extension AuditError {
    /// The system call that just failed.
    static func system(_ operation: String, _ path: String) -> AuditError {
        AuditError(path: path, problem: .system(operation: operation, errno: errno))
    }
}
