import Sandboxes

/// How fast bytes pass: what two answers of a daemon differ by.
struct ConnectionRates {
    /// Bytes a second.
    struct Rate {
        let up: UInt64
        let down: UInt64

        var both: UInt64 { up &+ down }
    }

    /// Of everything together; `nil` before there are two answers.
    private(set) var total: Rate?
    /// Of each of the newest answer's connections; those that have none were not in the answer before.
    private var rates: [String: Rate] = [:]
    private var previous: ConnectionsDocument?

    /// The rate of a connection; `nil` where it is not known yet.
    subscript(connection: ConnectionDocument) -> Rate? { rates[Self.key(connection)] }

    private static func key(_ connection: ConnectionDocument) -> String {
        "\(connection.sandbox)/\(connection.id)"
    }

    /// Takes the next answer.
    mutating func take(_ answer: ConnectionsDocument) {
        defer { previous = answer }
        rates = [:]
        total = nil
        guard let previous, answer.microseconds > previous.microseconds else { return }
        let microseconds = UInt64(answer.microseconds - previous.microseconds)
        func rate(_ up: UInt64, _ down: UInt64, since earlier: (up: UInt64, down: UInt64)) -> Rate {
            // What has ended, or went with its sandbox, counts no more.
            Rate(
                up: Self.perSecond(up > earlier.up ? up - earlier.up : 0, microseconds),
                down: Self.perSecond(down > earlier.down ? down - earlier.down : 0, microseconds)
            )
        }
        let known = Dictionary(previous.items.map { (Self.key($0), ($0.bytesUp, $0.bytesDown)) }) { first, _ in first }
        for connection in answer.items {
            let key = Self.key(connection)
            // One that began since has passed all it has since.
            guard let earlier = known[key] ?? (previous.omitted == 0 ? (0, 0) : nil) else { continue }
            rates[key] = rate(connection.bytesUp, connection.bytesDown, since: earlier)
        }
        total = rate(answer.bytesUp, answer.bytesDown, since: (previous.bytesUp, previous.bytesDown))
    }

    private static func perSecond(_ bytes: UInt64, _ microseconds: UInt64) -> UInt64 {
        let (product, isTooMuch) = bytes.multipliedReportingOverflow(by: 1_000_000)
        return isTooMuch ? bytes / max(microseconds / 1_000_000, 1) : product / microseconds
    }
}
