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

    private var descriptor: CInt
    private var buffer: [UInt8] = []
    private var consumed = 0
    /// How far `buffer` is known to hold no newline.
    private var searched = 0
    private var lineNumber: UInt64 = 0
    private var identity: FileIdentity

    /// No record is longer; a file with longer lines is something else.
    private static let lineLimit = 1 << 20
    private static let chunk = 64 << 10

    /// Opens a file for reading.
    public init(path: String) throws(AuditError) {
        self.path = path
        descriptor = path == "-" ? dup(STDIN_FILENO) : open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY)
        guard descriptor >= 0 else { throw .system("open", path) }
        guard let identity = FileIdentity(of: descriptor) else {
            Glibc.close(descriptor)
            throw .system("inspect", path)
        }
        self.identity = identity
    }

    deinit { close(descriptor) }

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
            guard buffer.count - consumed <= Self.lineLimit else {
                throw AuditError(path: path, problem: .notAnAuditLog)
            }
            guard try fill() else { return nil }
        }
    }

    /// Begins anew when the path leads to another file by now, or the file has become shorter: the log was rotated.
    /// What the old file still holds should have been read before.
    public func reopenIfReplaced() throws(AuditError) {
        guard path != "-", let current = FileIdentity(of: path) else { return }
        let position = lseek(descriptor, 0, SEEK_CUR)
        guard !current.isSameFile(as: identity) || current.size < position else { return }
        let fresh = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY)
        guard fresh >= 0 else { throw .system("open", path) }
        close(descriptor)
        descriptor = fresh
        identity = FileIdentity(of: fresh) ?? current
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
        buffer.append(contentsOf: repeatElement(0, count: Self.chunk))
        var count: Int
        repeat {
            count = buffer[start...].withUnsafeMutableBytes { read(descriptor, $0.baseAddress, $0.count) }
        } while count < 0 && errno == EINTR
        let failure = errno
        buffer.removeLast(Self.chunk - max(count, 0))
        guard count >= 0 else { throw AuditError(path: path, problem: .system(operation: "read", errno: failure)) }
        return count > 0
    }
}

/// What tells one file from another, and how long it is.
private struct FileIdentity {
    private let device: dev_t
    private let inode: ino_t
    let size: off_t

    init?(of descriptor: CInt) {
        var status = stat()
        guard fstat(descriptor, &status) == 0 else { return nil }
        self.init(status)
    }

    init?(of path: String) {
        var status = stat()
        guard stat(path, &status) == 0 else { return nil }
        self.init(status)
    }

    private init(_ status: stat) {
        device = status.st_dev
        inode = status.st_ino
        size = status.st_size
    }

    func isSameFile(as other: FileIdentity) -> Bool { device == other.device && inode == other.inode }
}
