import NetPrimitives

/// The files of a trail as they were at one moment: those that were rotated, in ascending order, then the current one.
struct TrailSnapshot: ~Copyable {
    private let directory: TrailDirectory
    private let rotated: [UInt64]
    private let current: AuditReader?

    /// How far the times of records may be out of order without a file being passed over for its time: 10 minutes.
    static let disorderSeconds: Int64 = 600

    init(directory path: String) throws(AuditError) {
        let directory = try TrailDirectory(path: path)
        // Opened before the others are listed: should it be rotated in between, it is among them, maybe with files
        // that came later, and they are left out. As long as it is empty it cannot be rotated.
        let current = try directory.reader(of: .current)
        var rotated = try directory.rotatedFiles()
        if let first = try current?.contents.firstRecord(from: 0)?.record.sequence { rotated.removeAll { $0 >= first } }
        self.directory = directory
        self.current = current
        self.rotated = rotated
    }

    /// How many files there are.
    var count: Int { rotated.count + (current == nil ? 0 : 1) }

    /// A file; `nil` when it is gone by now.
    func reader(_ index: Int) throws(AuditError) -> AuditReader? {
        index < rotated.count ? try directory.reader(of: .rotated(rotated[index])) : current
    }

    /// The file that record `sequence` would be in; 0 when it would be in an older one than there are.
    func index(of sequence: UInt64) throws(AuditError) -> Int {
        if let first = try current?.contents.firstRecord(from: 0)?.record.sequence, first <= sequence {
            return rotated.count
        }
        return max(Self.partitionPoint(rotated.count) { rotated[$0] <= sequence } - 1, 0)
    }

    /// The oldest file that may hold a record as new as `time`, judged by the first records of few files.
    func index(since time: WallTime) throws(AuditError) -> Int {
        let bound = time.advanced(bySeconds: -Self.disorderSeconds)
        let firstNewer = try Self.partitionPoint(count) { index throws(AuditError) in
            // Nothing is known of a file that is gone or holds no record: then older ones are looked at in vain.
            guard let head = try reader(index)?.contents.firstRecord(from: 0) else { return false }
            return head.record.time < bound
        }
        return max(firstNewer - 1, 0)
    }

    /// The number of the oldest rotated file that may hold a record as new as `time`; `nil` when only the current one
    /// may.
    func firstFile(since time: WallTime) throws(AuditError) -> UInt64? {
        let index = try index(since: time)
        return index < rotated.count ? rotated[index] : rotated.last.map { $0 + 1 }
    }

    /// How many of the numbers below `count`, the first ones, `isBefore` holds for.
    private static func partitionPoint<Failure: Error>(
        _ count: Int,
        isBefore: (Int) throws(Failure) -> Bool
    ) throws(Failure) -> Int {
        var range = 0..<count
        while !range.isEmpty {
            let middle = range.lowerBound + range.count / 2
            range = try isBefore(middle) ? (middle + 1)..<range.upperBound : range.lowerBound..<middle
        }
        return range.lowerBound
    }
}
