import EgressCore
import EgressPolicy
import NetPrimitives
import Testing

@testable import Datapath

@Suite struct ReadyAnswersTests {
    private static let now = MonotonicTime(nanoseconds: 5_000_000_000)
    private static let wallTime = WallTime(microseconds: 1_800_000_000_000_000)
    private static let query: [UInt8] = [0, 7, 1, 0, 0, 1, 9, 9]

    private static func basis(
        _ policy: CompiledPolicy = CompiledPolicy(Policy()),
        endedAdmissions: UInt64 = 0,
        deniedAnswer: QueryJudge.DeniedAnswer = .nameError
    ) -> ReadyAnswers.Basis {
        .init(policy: policy, endedAdmissions: endedAdmissions, deniedAnswer: deniedAnswer)
    }

    private static func answer(_ byte: UInt8 = 1, until: MonotonicTime = MonotonicTime(nanoseconds: .max))
        -> ReadyAnswers.Answer
    {
        .init(message: [0, 7, byte], events: [], outcome: .cached, isSameUntil: until)
    }

    /// What a fresh set with one answer gives to `query` on `basis`, later by so much.
    private static func given(
        _ answer: ReadyAnswers.Answer = answer(),
        to query: [UInt8] = query,
        keptOn kept: ReadyAnswers.Basis,
        on basis: ReadyAnswers.Basis,
        later nanoseconds: UInt64 = 0,
        wallLater microseconds: Int64 = 0
    ) -> [UInt8]? {
        var ready = ReadyAnswers()
        Self.query.withUnsafeBytes { ready.keep(answer, to: $0, on: kept, at: now, wallTime) }
        return query.withUnsafeBytes {
            ready.answer(
                to: $0,
                on: basis,
                at: now.advanced(byNanoseconds: nanoseconds),
                WallTime(microseconds: wallTime.microseconds + microseconds)
            )
        }?.message
    }

    @Test func theSameBytesButTheIdentifier() {
        let basis = Self.basis()
        #expect(Self.given(keptOn: basis, on: basis) == [0, 7, 1])
        #expect(Self.given(to: [3, 4] + Self.query.dropFirst(2), keptOn: basis, on: basis) == [0, 7, 1])
        for index in Self.query.indices.dropFirst(2) {
            var other = Self.query
            other[index] ^= 0x20
            #expect(Self.given(to: other, keptOn: basis, on: basis) == nil)
        }
        #expect(Self.given(to: Self.query + [0], keptOn: basis, on: basis) == nil)
        #expect(Self.given(to: Self.query.dropLast(), keptOn: basis, on: basis) == nil)
        #expect(Self.given(to: [0], keptOn: basis, on: basis) == nil)
        #expect(Self.given(to: [], keptOn: basis, on: basis) == nil)
    }

    @Test func nothingItStandsOnHasChanged() {
        let policy = CompiledPolicy(Policy())
        let kept = Self.basis(policy)
        #expect(Self.given(keptOn: kept, on: Self.basis(policy)) != nil)
        // The same rules again are another policy all the same: nobody compares them.
        #expect(Self.given(keptOn: kept, on: Self.basis()) == nil)
        #expect(Self.given(keptOn: kept, on: Self.basis(policy, endedAdmissions: 1)) == nil)
        #expect(Self.given(keptOn: kept, on: Self.basis(policy, deniedAnswer: .refused)) == nil)
    }

    @Test func forASecondAtMost() {
        let basis = Self.basis()
        #expect(Self.given(keptOn: basis, on: basis, later: 999_999_999) != nil)
        #expect(Self.given(keptOn: basis, on: basis, later: 1_000_000_000) == nil)
        let short = Self.answer(until: Self.now.advanced(byNanoseconds: 10))
        #expect(Self.given(short, keptOn: basis, on: basis, later: 9) != nil)
        #expect(Self.given(short, keptOn: basis, on: basis, later: 10) == nil)
    }

    @Test func untilARuleExpires() throws {
        let expiry = WallTime(microseconds: Self.wallTime.microseconds + 500)
        let rule = Rule(.allow, try Target(parsing: "api.example"), expiresAt: expiry)
        let basis = Self.basis(CompiledPolicy(Policy(rules: [rule])))
        #expect(Self.given(keptOn: basis, on: basis, wallLater: 499) != nil)
        #expect(Self.given(keptOn: basis, on: basis, wallLater: 500) == nil)
        // A clock that is set back may make a rule live again that had expired when the answer was made.
        #expect(Self.given(keptOn: basis, on: basis, wallLater: -1) == nil)
    }

    @Test func neverMoreThanSomeAndNoneOfAnotherBasis() {
        var ready = ReadyAnswers()
        let basis = Self.basis()
        func query(_ number: Int) -> [UInt8] { [0, 0, UInt8(number >> 8), UInt8(number & 0xff)] }
        func count(_ basis: ReadyAnswers.Basis) -> Int {
            (0..<1_000).count { number in
                query(number).withUnsafeBytes { ready.answer(to: $0, on: basis, at: Self.now, Self.wallTime) } != nil
            }
        }
        for number in 0..<1_000 {
            query(number).withUnsafeBytes { ready.keep(Self.answer(), to: $0, on: basis, at: Self.now, Self.wallTime) }
        }
        #expect((1...256).contains(count(basis)))
        let other = Self.basis()
        query(0).withUnsafeBytes { ready.keep(Self.answer(), to: $0, on: other, at: Self.now, Self.wallTime) }
        #expect(count(other) == 1)
        ready.removeAll()
        #expect(count(other) == 0)
    }

    @Test func longQueriesAreNotKept() {
        var ready = ReadyAnswers()
        let basis = Self.basis()
        let long = [UInt8](repeating: 1, count: 321)
        long.withUnsafeBytes {
            ready.keep(Self.answer(), to: $0, on: basis, at: Self.now, Self.wallTime)
            #expect(ready.answer(to: $0, on: basis, at: Self.now, Self.wallTime) == nil)
        }
    }
}
