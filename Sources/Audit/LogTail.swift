import Glibc

/// Where a log that exists ends: what its next record must stand behind.
struct LogTail {
    /// The sequence number of the last record; 0 when there is none.
    private(set) var lastSequence: UInt64 = 0
    /// What the next record's `prev` covers.
    private(set) var chain = LineChain()
    /// Lines behind the last record that are none: what crashes cut off.
    private(set) var tornLines: UInt64 = 0
    /// Whether the file ends without a newline.
    private(set) var endsInsideLine = false

    /// What is read at most to find the last record. A record has at most about 10 KiB.
    static let reach = 1 << 20

    /// A crash leaves one line; more of them in a row than this come from somebody else's hand.
    private static let tornLimit = 64

    /// Reads the end of the file. Throws when it does not look like a log of ours: continuing it would spoil somebody
    /// else's file.
    init(reading descriptor: CInt, path: String) throws(AuditError) {
        var status = stat()
        guard fstat(descriptor, &status) == 0 else { throw .system("inspect", path) }
        guard status.st_size > 0 else { return }
        var length = min(Int(status.st_size), 64 << 10)
        while true {
            let start = Int(status.st_size) - length
            let bytes = try Self.read(descriptor, from: start, count: length, path: path)
            if find(in: bytes, isWhole: start == 0) { return }
            guard start > 0, length < Self.reach else { break }
            length = min(Int(status.st_size), length * 16, Self.reach)
        }
        throw AuditError(path: path, problem: .notAnAuditLog)
    }

    /// Whether `bytes`, the end of the file, hold the last record, or are a whole log whose first record was cut off.
    private mutating func find(in bytes: [UInt8], isWhole: Bool) -> Bool {
        let newline = UInt8(ascii: "\n")
        endsInsideLine = bytes.last != newline
        var torn: [ArraySlice<UInt8>] = []
        var end = endsInsideLine ? bytes.endIndex : bytes.endIndex - 1
        while true {
            let lineStart = bytes[..<end].lastIndex(of: newline).map { $0 + 1 }
            guard isWhole || lineStart != nil else { return false }
            let line = bytes[(lineStart ?? 0)..<end]
            // A line without its newline is torn even if it parses: what follows could belong to it.
            if !(endsInsideLine && end == bytes.endIndex), let record = try? AuditLine(parsing: line) {
                lastSequence = record.sequence
                chain.follow(record: line)
                break
            }
            torn.append(line)
            guard torn.count <= Self.tornLimit else { return false }
            guard let lineStart else {
                let opening = Array("{\"seq\":".utf8)
                guard line.starts(with: opening) || opening.starts(with: line) else { return false }
                break
            }
            end = lineStart - 1
        }
        for line in torn.reversed() { chain.follow(torn: line) }
        tornLines = UInt64(torn.count)
        return true
    }

    private static func read(
        _ descriptor: CInt,
        from start: Int,
        count: Int,
        path: String
    ) throws(AuditError) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: count)
        var filled = 0
        while filled < count {
            let got = bytes[filled...].withUnsafeMutableBytes {
                pread(descriptor, $0.baseAddress, $0.count, off_t(start + filled))
            }
            if got < 0, errno == EINTR { continue }
            guard got >= 0 else { throw .system("read", path) }
            guard got > 0 else { break }
            filled += got
        }
        return Array(bytes.prefix(filled))
    }
}
