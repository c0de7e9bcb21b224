import Audit
import NetPrimitives

/// What was refused lately: the same thing once, with how often.
struct RecentRefusals {
    /// A thing that is refused.
    struct Refusal {
        let sandbox: String
        let destination: String
        let cause: String
        var time: WallTime
        var count: UInt64
    }

    /// More than any screen has rows; a sandbox chooses what there is.
    private static let limit = 200

    private var refusals: [String: Refusal] = [:]
    private var newest: UInt64 = 0

    /// Takes a record, unless it was taken before; records come in their order.
    mutating func take(_ line: some Collection<UInt8>) {
        guard let record = try? AuditLine(parsing: line), record.sequence > newest else { return }
        newest = record.sequence
        var cause = [record.layer, record.reason].compactMap { $0 }.map { Printable.text($0) }.joined(separator: ", ")
        if record.isReportOnly { cause = "would be denied: " + cause }
        let destination = record.destination ?? "?"
        let key = "\(record.sandbox) \(destination) \(cause)"
        let count = (refusals[key]?.count ?? 0) &+ (record.count ?? 1)
        refusals[key] = Refusal(
            sandbox: Printable.text(record.sandbox),
            destination: destination,
            cause: cause,
            time: record.time,
            count: count
        )
        if refusals.count > Self.limit * 2 {
            let kept = latest.prefix(Self.limit).map(\.time).last ?? record.time
            refusals = refusals.filter { $0.value.time >= kept }
        }
    }

    /// Takes the daemon's answer, in which the newest record comes first.
    mutating func take(page answer: some Collection<UInt8>) {
        AuditPage.lines(in: answer).reversed().forEach { take($0) }
    }

    /// The newest first.
    var latest: [Refusal] { refusals.values.sorted { $0.time > $1.time } }
}
