import Audit
import Foundation
import NetPrimitives
import Testing

@Suite struct TimestampTests {
    @Test(arguments: [
        (0, "1970-01-01T00:00:00.000000Z"), (-1, "1969-12-31T23:59:59.999999Z"),
        (951_782_400_000_000, "2000-02-29T00:00:00.000000Z"), (1_709_251_199_999_999, "2024-02-29T23:59:59.999999Z"),
        (Int64.max, "9999-12-31T23:59:59.999999Z"), (Int64.min, "0000-01-01T00:00:00.000000Z"),
    ])
    func writesAndReads(microseconds: Int64, text: String) throws {
        #expect(Timestamp.text(of: WallTime(microseconds: microseconds)) == text)
        let time = try #require(Timestamp.time(parsing: text.utf8))
        #expect(Timestamp.text(of: time) == text)
    }

    @Test func agreesWithFoundation() throws {
        let formatter = ISO8601DateFormatter()
        formatter.timeZone = TimeZone(identifier: "UTC")
        for day in stride(from: -40_000, through: 80_000, by: 17) {
            let seconds = Int64(day) * 86_400 + 12_345
            let expected = formatter.string(from: Date(timeIntervalSince1970: Double(seconds)))
            let time = WallTime(microseconds: seconds * 1_000_000)
            #expect(Timestamp.text(of: time) == expected.dropLast() + ".000000Z")
            #expect(Timestamp.time(parsing: expected.utf8) == time)
        }
    }

    @Test(arguments: [
        ("1970-01-01T00:00:00.5Z", 500_000), ("1970-01-01T01:30:00+01:30", 0), ("1969-12-31T23:00:00-01:00", 0),
        ("1970-01-01T00:00:00.1234567Z", 123_456),
    ])
    func readsOtherSpellings(text: String, microseconds: Int64) {
        #expect(Timestamp.time(parsing: text.utf8) == WallTime(microseconds: microseconds))
    }

    @Test(arguments: [
        "", "1970-01-01", "1970-01-01T00:00:00", "1970-13-01T00:00:00Z", "1970-00-01T00:00:00Z",
        "1970-01-32T00:00:00Z", "2023-02-29T00:00:00Z", "1970-01-01T24:00:00Z", "1970-01-01T00:60:00Z",
        "1970-01-01T00:00:00.Z", "1970-01-01T00:00:00Z ", "1970-01-01 00:00:00Z", "+970-01-01T00:00:00Z",
    ])
    func refusesOtherText(text: String) {
        #expect(Timestamp.time(parsing: text.utf8) == nil)
    }
}
