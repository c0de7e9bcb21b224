import Glibc

/// Reads a log line by line, also while it grows.
public final class AuditReader {
    /// A line without its newline.
    public struct Line: Hashable, Sendable {
        /// Its place in the file, from 1.
        public let number: UInt64
        /// Its bytes.
        public let bytes: [UInt8]
    }

    /// The file; `-` is standard input.
    public let path: String
    /// What has been read behind the last newline.
    public var partial: ArraySlice<UInt8> { buffer[consumed...] }

    private var descriptor: LogDescriptor
    private var buffer: [UInt8] = []
    private var consumed = 0
    /// How far `buffer` is known to hold no newline.
    private var searched = 0
    private var lineNumber: UInt64 = 0
    /// What tells the file from others.
    private(set) var identity: FileIdentity

    /// Opens a file for reading.
    public convenience init(path: String) throws(AuditError) {
        let descriptor = path == "-" ? dup(STDIN_FILENO) : open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY)
        guard descriptor >= 0 else { throw .system("open", path) }
        try self.init(descriptor: LogDescriptor(taking: descriptor), path: path)
    }

    /// Reads what is open as `descriptor`; `path` is what it is called.
    init(descriptor: LogDescriptor, path: String) throws(AuditError) {
        self.path = path
        self.descriptor = descriptor
        identity = FileIdentity(try LogBytes(descriptor: descriptor, path: path).status())
    }

    /// The next whole line; `nil` when there is none yet. Throws when reading fails, and for a file that has no lines
    /// that could be records.
    public func next() throws(AuditError) -> Line? {
        while true {
            if let newline = buffer[searched...].firstIndex(of: UInt8(ascii: "\n")) {
                lineNumber += 1
                let line = Line(number: lineNumber, bytes: Array(buffer[consumed..<newline]))
                consumed = newline + 1
                searched = consumed
                return line
            }
            searched = buffer.count
            // No record is so long; a file with longer lines is something else.
            guard buffer.count - consumed <= LogBytes.reach else {
                throw AuditError(path: path, problem: .notAnAuditLog)
            }
            guard try fill() else { return nil }
        }
    }

    /// Begins anew when the path leads to another file by now, or the file has become shorter: the log was rotated.
    /// What the old file still holds should have been read before.
    public func reopenIfReplaced() throws(AuditError) {
        var current = stat()
        guard path != "-", stat(path, &current) == 0 else { return }
        guard FileIdentity(current) != identity else {
            try rewindIfCut()
            return
        }
        let fresh = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY)
        guard fresh >= 0 else { throw .system("open", path) }
        descriptor = LogDescriptor(taking: fresh)
        identity = FileIdentity(try contents.status())
        beginAnew()
    }

    /// Begins anew when the file has become shorter than what was read of it; gives whether it did.
    @discardableResult
    func rewindIfCut() throws(AuditError) -> Bool {
        guard try contents.size() < Int(lseek(descriptor.value, 0, SEEK_CUR)) else { return false }
        seek(to: 0)
        return true
    }

    /// What is in the file.
    var contents: LogBytes { LogBytes(descriptor: descriptor, path: path) }

    /// Goes on reading at `offset`, the beginning of a line. Lines are counted from there.
    func seek(to offset: Int) {
        lseek(descriptor.value, off_t(offset), SEEK_SET)
        beginAnew()
    }

    /// Takes what stands behind the last newline for a line, of a file that will not grow any more; `nil` when there
    /// is nothing.
    func takePartial() -> Line? {
        guard !partial.isEmpty else { return nil }
        lineNumber += 1
        defer { consumed = buffer.count }
        return Line(number: lineNumber, bytes: Array(partial))
    }

    private func beginAnew() {
        buffer = []
        consumed = 0
        searched = 0
        lineNumber = 0
    }

    private func fill() throws(AuditError) -> Bool {
        buffer.removeFirst(consumed)
        searched -= consumed
        consumed = 0
        let start = buffer.count
        buffer.append(contentsOf: repeatElement(0, count: LogBytes.chunk))
        var count: Int
        repeat {
            count = buffer[start...].withUnsafeMutableBytes { read(descriptor.value, $0.baseAddress, $0.count) }
        } while count < 0 && errno == EINTR
        let failure = errno
        buffer.removeLast(LogBytes.chunk - max(count, 0))
        guard count >= 0 else { throw AuditError(path: path, problem: .system(operation: "read", errno: failure)) }
        return count > 0
    }
}
