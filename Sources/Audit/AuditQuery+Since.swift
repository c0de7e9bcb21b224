public import NetPrimitives

extension AuditQuery {
    /// The earliest time that text like `90s`, `10m`, `2h`, `7d` (before `now`) or an RFC 3339 time speaks of; `nil`
    /// for anything else.
    public static func since(parsing text: String, now: WallTime) -> WallTime? {
        if let time = Timestamp.time(parsing: text.utf8) { return time }
        let units: [Character: Int64] = ["s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800]
        let digits = text.dropLast()
        guard let unit = text.last.flatMap({ units[$0] }), !digits.isEmpty, digits.utf8.count <= 9,
            digits.utf8.allSatisfy({ (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) }),
            let amount = Int64(digits)
        else { return nil }
        return now.advanced(bySeconds: -amount * unit)
    }
}
