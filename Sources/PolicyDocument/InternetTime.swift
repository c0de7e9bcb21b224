import NetPrimitives

/// Points in time as policies write them, and durations as people do.
enum InternetTime {
    /// Parses `2026-12-01T00:00:00Z`; see ``Timestamp``. A leap second, which no expiry means, is refused.
    static func parse(_ text: String) -> WallTime? {
        Timestamp.time(parsing: text.utf8, acceptsLeapSecond: false)
    }

    /// The text that ``parse(_:)`` reads, in UTC, without a fraction when there is none.
    static func text(of time: WallTime) -> String {
        let text = Timestamp.text(of: time)
        let zeros = ".000000Z"
        return text.hasSuffix(zeros) ? text.dropLast(zeros.count) + "Z" : text
    }

    /// The seconds in `30s`, `10m`, `1h`, `2d`; `nil` for anything else, 0 and more than 100 years.
    static func seconds(in duration: String) -> Int64? {
        let units: [Character: Int64] = ["s": 1, "m": 60, "h": 3_600, "d": 86_400]
        let digits = duration.dropLast()
        guard let unit = duration.last.flatMap({ units[$0] }), (1...10).contains(digits.utf8.count),
            digits.utf8.allSatisfy({ (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) }), let count = Int64(digits)
        else { return nil }
        let seconds = count * unit
        return (1...3_155_760_000).contains(seconds) ? seconds : nil
    }
}
