import EgressCore
import EgressPolicy
import NetPrimitives

/// What programs were answered in the last second, by the very bytes of what they asked: programs ask the same again and
/// again, and most of what it takes to parse, judge, look up, pin and encode an answer comes to the same.
///
/// An answer is ready for as long as all of that would come out the same, and no longer: under the same policy, before the
/// next rule expires, while no pin has ended, until its TTLs count down, and for a second at most. Whoever asks for longer
/// goes the whole way once a second, which renews its pins.
struct ReadyAnswers {
    /// One answer.
    struct Answer {
        /// The message, whose first two bytes are to be replaced by the query's (the identifier, RFC 1035 4.1.1).
        let message: [UInt8]
        /// What is recorded each time that it is given, with the time still to be set.
        let events: [AuditEvent]
        /// How it is counted.
        let outcome: LatencyCounts.AnswerOutcome
        /// Until when it is the same.
        var isSameUntil: MonotonicTime
    }

    /// What the answers stand on besides the time.
    struct Basis {
        /// The policy in force.
        let policy: CompiledPolicy
        /// ``PinTable/endedAdmissions``: whether every address in them is still pinned.
        let endedAdmissions: UInt64
        /// How denied names are answered.
        let deniedAnswer: QueryJudge.DeniedAnswer

        fileprivate func isSame(as other: Basis) -> Bool {
            policy === other.policy && endedAdmissions == other.endedAdmissions && deniedAnswer == other.deniedAnswer
        }
    }

    private struct Entry {
        let query: [UInt8]
        let answer: Answer
    }

    /// The most answers; when there are more, all are forgotten. They would be in a second.
    private static let maximumCount = 256
    /// The longest query that is kept, in bytes.
    private static let longestQuery = 320
    private static let maximumSeconds: UInt64 = 1

    /// By the hash of the query without its identifier. Another query of the same hash takes the place; hashes are seeded, so
    /// nobody outside knows two of them.
    private var entries: [Int: Entry] = [:]
    /// What all of `entries` stand on; the policy is held, so that no other can come to lie where it was.
    private var basis: Basis?
    /// From when the first was kept to when the next rule expires; nothing is ready outside, wherever the clock is set to.
    private var term = WallTime(microseconds: .min)..<WallTime(microseconds: .min)

    /// The answer to `query`, a whole message.
    mutating func answer(
        to query: UnsafeRawBufferPointer,
        on basis: Basis,
        at now: MonotonicTime,
        _ wallTime: WallTime
    ) -> Answer? {
        guard let kept = self.basis else { return nil }
        guard kept.isSame(as: basis), term.contains(wallTime) else {
            removeAll()
            return nil
        }
        guard query.count > 2, query.count <= Self.longestQuery else { return nil }
        let question = UnsafeRawBufferPointer(rebasing: query[2...])
        guard let entry = entries[Self.hash(question)], now < entry.answer.isSameUntil,
            entry.query.count == question.count,
            entry.query.withUnsafeBytes({ $0.elementsEqual(question) })
        else { return nil }
        return entry.answer
    }

    /// Has `answer` ready for who asks `query` again.
    mutating func keep(
        _ answer: Answer,
        to query: UnsafeRawBufferPointer,
        on basis: Basis,
        at now: MonotonicTime,
        _ wallTime: WallTime
    ) {
        guard query.count > 2, query.count <= Self.longestQuery else { return }
        if self.basis?.isSame(as: basis) != true || !term.contains(wallTime) || entries.count >= Self.maximumCount {
            removeAll()
            self.basis = basis
            term = wallTime..<(basis.policy.nextExpiry(after: wallTime) ?? WallTime(microseconds: .max))
        }
        var answer = answer
        answer.isSameUntil = min(answer.isSameUntil, now.advanced(bySeconds: Self.maximumSeconds))
        let question = UnsafeRawBufferPointer(rebasing: query[2...])
        entries[Self.hash(question)] = Entry(query: Array(question), answer: answer)
    }

    /// Forgets everything.
    mutating func removeAll() {
        entries = [:]
        basis = nil
    }

    private static func hash(_ question: UnsafeRawBufferPointer) -> Int {
        var hasher = Hasher()
        hasher.combine(bytes: question)
        return hasher.finalize()
    }
}
