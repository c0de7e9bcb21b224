import Glibc

/// Reads a log's file at any place (pread(2)).
struct LogBytes {
    let descriptor: LogDescriptor
    let path: String

    /// What is read at once. A record has at most about 10 KiB.
    static let chunk = 64 << 10
    /// What is read at most to find a record among torn lines.
    static let reach = 1 << 20
    /// How near a search in a file comes; most records have less than 500 bytes.
    private static let precision = 8 << 10

    /// How long the file is now.
    func size() throws(AuditError) -> Int { Int(try status().st_size) }

    /// What the kernel knows of the file.
    func status() throws(AuditError) -> stat {
        var status = stat()
        guard fstat(descriptor.value, &status) == 0 else { throw .system("inspect", path) }
        return status
    }

    /// `count` bytes from `start` on; fewer at the end of the file.
    func bytes(from start: Int, count: Int) throws(AuditError) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: count)
        var filled = 0
        while filled < count {
            let got = bytes[filled...].withUnsafeMutableBytes {
                pread(descriptor.value, $0.baseAddress, $0.count, off_t(start + filled))
            }
            if got < 0, errno == EINTR { continue }
            guard got >= 0 else { throw .system("read", path) }
            guard got > 0 else { break }
            filled += got
        }
        bytes.removeLast(count - filled)
        return bytes
    }

    /// The first record whose line begins at `start` or behind it, and where it begins; `nil` when there is none in
    /// reach. A line without its newline does not count: it may be in the making.
    func firstRecord(from start: Int) throws(AuditError) -> (offset: Int, record: AuditLine)? {
        for reach in [Self.precision, Self.chunk, Self.reach] {
            // From the byte before, so that a line which begins at `start` itself is seen to begin there.
            let base = max(start - 1, 0)
            let bytes = try bytes(from: base, count: reach)
            var rest = bytes[...]
            if start > 0 { rest = bytes.drop { $0 != UInt8(ascii: "\n") }.dropFirst() }
            while let newline = rest.firstIndex(of: UInt8(ascii: "\n")) {
                if let record = try? AuditLine(parsing: rest[..<newline]) { return (base + rest.startIndex, record) }
                rest = rest[(newline + 1)...]
            }
            guard bytes.count == reach else { return nil }
        }
        return nil
    }

    /// Where in the file the records that `isBefore` holds for give way to the others; they have to be the first
    /// ones. Every record that begins before the lower bound is one of them, no record that begins at the upper bound
    /// or behind it is. The bounds are the beginnings of lines, or the end of the file, and not far apart: what lies
    /// between was not worth another read.
    func boundary(isBefore: (AuditLine) -> Bool) throws(AuditError) -> Range<Int> {
        var lower = 0
        var upper = try size()
        // The boundary is sought below it; no record begins between it and `upper`, as far as one was found.
        var ceiling = upper
        while ceiling - lower > Self.precision {
            let middle = lower + (ceiling - lower) / 2
            if let (offset, record) = try firstRecord(from: middle), offset < upper {
                if isBefore(record) {
                    lower = offset
                } else {
                    ceiling = middle
                    upper = offset
                }
            } else {
                ceiling = middle
            }
        }
        return lower..<upper
    }
}

/// The lines of a file, the last one first.
struct ReverseLines {
    private let file: LogBytes
    /// What was read and not given yet; it begins at `start` in the file.
    private var pending: ArraySlice<UInt8> = []
    private var start: Int
    private var isAtStart = false

    /// The lines that begin before `end`, which is the beginning of a line or the end of the file.
    init(of file: LogBytes, before end: Int) throws(AuditError) {
        self.file = file
        start = end
        try fill()
        if pending.last == UInt8(ascii: "\n") { pending.removeLast() } else { isAtStart = pending.isEmpty }
    }

    /// The line before the last one given, without its newline; `nil` at the beginning of the file.
    mutating func next() throws(AuditError) -> ArraySlice<UInt8>? {
        while !isAtStart {
            if let newline = pending.lastIndex(of: UInt8(ascii: "\n")) {
                let line = pending[(newline + 1)...]
                pending = pending[..<newline]
                return line
            }
            if start == 0 {
                isAtStart = true
                return pending
            }
            guard pending.count <= LogBytes.reach else {
                throw AuditError(path: file.path, problem: .notAnAuditLog)
            }
            try fill()
        }
        return nil
    }

    private mutating func fill() throws(AuditError) {
        let count = min(start, LogBytes.chunk)
        let bytes = try file.bytes(from: start - count, count: count)
        pending = (bytes + pending)[...]
        start -= count
    }
}
