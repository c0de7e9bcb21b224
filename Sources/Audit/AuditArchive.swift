import NetPrimitives

/// Answers questions about what stands in the files of a trail, page by page, also while it is written. Every query
/// opens the files anew and reads no more of them than it has to, 64 KiB at a time.
public struct AuditArchive: Sendable {
    /// A part of an answer.
    public struct Page: Hashable, Sendable {
        /// The records that were wanted.
        public var entries: [AuditEntry] = []
        /// Where to go on: the last record that was looked at, when there may be more; `nil` at the end.
        public var next: UInt64?
        /// The last record that was looked at, wanted or not; `nil` when there was none. Who waits for new records
        /// asks for those after it.
        public var lastExamined: UInt64?
    }

    /// The directory of the trail.
    public let directory: String

    /// The archive in `directory`, which is not touched yet.
    public init(directory: String) {
        self.directory = directory
    }

    /// The records that `query` wants behind record `sequence`, or from the oldest there is on, in ascending order: at
    /// most `limit`, out of at most `budget` that are looked at (each at least 1). Throws when a file cannot be read; files that are
    /// removed meanwhile are passed over.
    ///
    /// Where the clock was set back by more than 10 minutes, `since` may pass over records before that.
    public func query(
        _ query: AuditQuery,
        after sequence: UInt64? = nil,
        limit: Int,
        examining budget: Int = .max
    ) throws(AuditError) -> Page {
        let snapshot = try TrailSnapshot(directory: directory)
        var search = Search(query: query, limit: limit, budget: budget)
        var index = 0
        if let sequence { index = try snapshot.index(of: sequence &+ 1) }
        if let since = query.since { index = max(index, try snapshot.index(since: since)) }
        let earliest = query.since?.advanced(bySeconds: -TrailSnapshot.disorderSeconds)
        func isPassed(_ record: AuditLine) -> Bool {
            if let sequence, record.sequence <= sequence { return true }
            return earliest.map { record.time < $0 } ?? false
        }
        while index < snapshot.count {
            defer { index += 1 }
            guard let reader = try snapshot.reader(index) else { continue }
            reader.seek(to: try reader.contents.boundary(isBefore: isPassed).lowerBound)
            while let line = try reader.next()?.bytes {
                guard let record = try? AuditLine(parsing: line), !isPassed(record) else { continue }
                guard search.take(record, line) else { return search.page(isComplete: false) }
            }
            // A record may lack its newline still; the rest of the file can wait for the next query.
            let rest = reader.partial
            if let record = try? AuditLine(parsing: rest), !isPassed(record), !search.take(record, Array(rest)) {
                return search.page(isComplete: false)
            }
        }
        return search.page(isComplete: true)
    }

    /// The records that `query` wants before record `sequence`, or from the newest there is on, in descending order:
    /// at most `limit`, out of at most `budget` that are looked at. As ``query(_:after:limit:examining:)`` otherwise.
    public func latest(
        _ query: AuditQuery,
        before sequence: UInt64? = nil,
        limit: Int,
        examining budget: Int = .max
    ) throws(AuditError) -> Page {
        let snapshot = try TrailSnapshot(directory: directory)
        var search = Search(query: query, limit: limit, budget: budget)
        var index = snapshot.count - 1
        if let sequence { index = min(index, try snapshot.index(of: sequence &- 1)) }
        let earliest = query.since?.advanced(bySeconds: -TrailSnapshot.disorderSeconds)
        while index >= 0 {
            defer { index -= 1 }
            guard let reader = try snapshot.reader(index) else { continue }
            let contents = reader.contents
            var end = try contents.size()
            if let sequence { end = try contents.boundary { $0.sequence < sequence }.upperBound }
            var lines = try ReverseLines(of: contents, before: end)
            while let line = try lines.next() {
                guard let record = try? AuditLine(parsing: line) else { continue }
                if let sequence, record.sequence >= sequence { continue }
                if let earliest, record.time < earliest { return search.page(isComplete: true) }
                guard search.take(record, Array(line)) else { return search.page(isComplete: false) }
            }
        }
        return search.page(isComplete: true)
    }

    /// A page in the making.
    private struct Search {
        let query: AuditQuery
        let limit: Int
        var budget: Int
        private var gathered = Page()

        init(query: AuditQuery, limit: Int, budget: Int) {
            self.query = query
            // A page that looks at nothing would have nowhere to go on.
            self.limit = max(limit, 1)
            self.budget = max(budget, 1)
        }

        /// Looks at a record; gives whether it could, which it cannot once a limit was reached.
        mutating func take(_ record: AuditLine, _ line: @autoclosure () -> [UInt8]) -> Bool {
            guard gathered.entries.count < limit, budget > 0 else { return false }
            budget -= 1
            gathered.lastExamined = record.sequence
            if query.matches(record) {
                gathered.entries.append(AuditEntry(sequence: record.sequence, line: line()))
            }
            return true
        }

        func page(isComplete: Bool) -> Page {
            var page = gathered
            if !isComplete { page.next = page.lastExamined }
            return page
        }
    }
}
