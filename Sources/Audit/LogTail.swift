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

    /// A crash leaves one line; more of them in a row than this come from somebody else's hand.
    private static let tornLimit = 64

    /// The end of nothing.
    init() {}

    /// Reads the end of a file. `predecessor` is the end of what the file continues; it is asked for only when there
    /// is no record in the file itself. Throws when the file does not look like a log of ours: continuing it would
    /// spoil somebody else's file.
    init(
        of file: LogBytes,
        behind predecessor: () throws(AuditError) -> LogTail = { () throws(AuditError) in LogTail() }
    ) throws(AuditError) {
        let size = try file.size()
        var length = min(size, LogBytes.chunk)
        while true {
            let bytes = try file.bytes(from: size - length, count: length)
            if let end = Self.find(in: bytes, isWhole: length == size) {
                if let record = end.record {
                    lastSequence = record.sequence
                    chain.follow(record: record.line)
                } else {
                    self = try predecessor()
                }
                for line in end.torn { chain.follow(torn: line) }
                tornLines += UInt64(end.torn.count)
                endsInsideLine = !bytes.isEmpty && bytes.last != UInt8(ascii: "\n")
                return
            }
            guard length < size, length < LogBytes.reach else { break }
            length = min(size, length * 16, LogBytes.reach)
        }
        throw AuditError(path: file.path, problem: .notAnAuditLog)
    }

    /// The last record in `bytes`, the end of the file, and the lines behind it. No record, when they are a whole log
    /// whose first record was cut off; `nil`, when they show too little or are no log.
    private static func find(
        in bytes: [UInt8],
        isWhole: Bool
    ) -> (record: (sequence: UInt64, line: ArraySlice<UInt8>)?, torn: [ArraySlice<UInt8>])? {
        let newline = UInt8(ascii: "\n")
        var torn: [ArraySlice<UInt8>] = []
        var rest = bytes.last == newline ? bytes.dropLast() : bytes[...]
        guard !bytes.isEmpty else { return (nil, []) }
        while true {
            let separator = rest.lastIndex(of: newline)
            guard isWhole || separator != nil else { return nil }
            let line = rest[(separator.map { $0 + 1 } ?? rest.startIndex)...]
            // The last line may lack no more than its newline: no part of a JSON object is one itself.
            if let record = try? AuditLine(parsing: line) { return ((record.sequence, line), torn.reversed()) }
            torn.append(line)
            guard torn.count <= tornLimit else { return nil }
            guard let separator else {
                let opening = Array("{\"seq\":".utf8)
                guard line.starts(with: opening) || opening.starts(with: line) else { return nil }
                return (nil, torn.reversed())
            }
            rest = rest[..<separator]
        }
    }
}
