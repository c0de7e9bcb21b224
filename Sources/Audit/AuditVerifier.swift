/// Checks a log line by line: that every record is tied to what stands before it, that no sequence number is missing,
/// and that lines which are no records are only those that a crash cut off.
///
/// What it cannot see: a change to the last record, records removed from the end, and a whole log written anew. Keep
/// ``head`` elsewhere to see those too.
public struct AuditVerifier: Sendable {
    /// Where a chain breaks.
    public struct Break: Error, Hashable, Sendable {
        /// What is wrong with the line.
        public enum Problem: Hashable, Sendable {
            /// No record, and not followed by the record of a loss.
            case notARecord
            /// The line before is not the one it was written behind.
            case chain
            /// Its number does not follow the one before.
            case sequence(found: UInt64, expected: UInt64)
        }

        /// The line, from 1.
        public let line: UInt64
        /// What is wrong with it.
        public let problem: Problem

        /// Whether the log begins with another record than the first: it may be a part of one.
        public var isLateBeginning: Bool {
            if case .sequence(_, expected: 1) = problem { true } else { false }
        }
    }

    /// Where a log begins whose first records were removed.
    public struct Beginning: Hashable, Sendable {
        /// The number of the first record that is left.
        public let sequence: UInt64
        /// The digest of what stood before it.
        public let previous: LineDigest
    }

    /// Lines seen.
    public private(set) var lines: UInt64 = 0
    /// Records seen.
    public private(set) var records: UInt64 = 0
    /// Records that the log itself says were lost.
    public private(set) var lost: UInt64 = 0
    /// Lines that a crash cut off.
    public private(set) var tornLines: UInt64 = 0
    /// The digest that the next record has to carry; `nil` before the first.
    public var head: LineDigest? { chain.digest }

    /// Where the log begins; `nil` when it does so with the first record, and before a record was seen.
    public private(set) var beginning: Beginning?

    private let allowsLaterBeginning: Bool
    private var chain = LineChain()
    private var lastSequence: UInt64 = 0
    /// The first of the lines since the last record that are none.
    private var firstTorn: UInt64?

    /// A verifier at the start of a log. With `allowsLaterBeginning` it may begin with any record, as a trail does
    /// whose oldest files were removed: see ``beginning``. What stood before, it cannot judge then.
    public init(allowsLaterBeginning: Bool = false) {
        self.allowsLaterBeginning = allowsLaterBeginning
    }

    /// Takes the next line, without its newline.
    public mutating func consume(_ line: some Collection<UInt8>) throws(Break) {
        lines += 1
        guard let record = try? AuditLine(parsing: line) else {
            if firstTorn == nil { firstTorn = lines }
            chain.follow(torn: line)
            tornLines += 1
            return
        }
        if let firstTorn, record.event != "audit.lost" { throw Break(line: firstTorn, problem: .notARecord) }
        if allowsLaterBeginning, records == 0, record.sequence > 1 {
            guard let previous = record.previous else { throw Break(line: lines, problem: .chain) }
            beginning = Beginning(sequence: record.sequence, previous: previous)
        } else {
            guard record.sequence == lastSequence + 1 else {
                throw Break(line: lines, problem: .sequence(found: record.sequence, expected: lastSequence + 1))
            }
            guard record.previous == chain.digest else { throw Break(line: lines, problem: .chain) }
        }
        if record.event == "audit.lost" { lost &+= record.count ?? 1 }
        firstTorn = nil
        lastSequence = record.sequence
        records += 1
        chain.follow(record: line)
    }

    /// Ends the log. `partial` is what stands behind the last newline: a crash or a writer at work, not a break.
    /// Throws when the last whole lines are no records and nothing follows them.
    public func finish(partial: some Collection<UInt8>) throws(Break) {
        if let firstTorn, partial.isEmpty { throw Break(line: firstTorn, problem: .notARecord) }
    }
}

extension AuditVerifier.Break: CustomStringConvertible {
    /// `line 7: what stands before it was changed, removed or inserted`.
    public var description: String {
        switch problem {
        case .notARecord: "line \(line): not an audit record"
        case .chain: "line \(line): what stands before it was changed, removed or inserted"
        case .sequence(let found, let expected): "line \(line): record \(found) stands where record \(expected) belongs"
        }
    }
}
