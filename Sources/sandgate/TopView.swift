import NetPrimitives
import Sandboxes

/// What `sandgate top` shows, line by line. It knows no terminal.
struct TopView {
    var listing: ConnectionsDocument
    var rates: ConnectionRates
    var refusals: RecentRefusals
    /// Whether there is one sandbox, which needs no column.
    var isOneSandbox: Bool
    /// Whether there is a daemon; if not, this is what it said last.
    var isDaemonThere = true
    /// When it was noticed that another daemon is there.
    var restart: String?

    /// A column of a table.
    private struct Column<Row> {
        let title: String
        /// So many characters; what the others leave if `nil`.
        let width: Int?
        var isNumber = false
        let cell: (Row) -> String
    }

    // MARK: - On a screen

    /// What a screen of so many columns and rows shows: the fastest connections, beneath them what was refused last.
    func lines(columns: Int, rows: Int) -> [ScreenLine] {
        let refused = refusals.latest
        // Two headings and the summary; of the rest, what was refused gets a third, and what connections leave.
        let room = max(rows - 3, 0)
        let connections = ranked
        let shown = min(connections.count, room - min(refused.count, room / 3))
        var lines = [ScreenLine(summary(shown), .strong, columns: columns)]
        lines += table(connectionColumns(columns), connections.prefix(shown), columns)
        lines += table(refusalColumns(columns), refused.prefix(room - shown), columns)
        return Array(lines.prefix(rows))
    }

    /// The fastest first; of those that are as fast, what has passed on most, then the newest.
    private var ranked: [ConnectionDocument] {
        listing.items
            .map { (rank: (rates[$0]?.both ?? 0, $0.bytesUp &+ $0.bytesDown, $0.since), connection: $0) }
            .sorted { $0.rank > $1.rank }
            .map(\.connection)
    }

    private func summary(_ shown: Int) -> String {
        guard isDaemonThere else {
            return "\(listing.clock)Z  the daemon has ended; waiting for the next one  q: quit"
        }
        let count = "\(listing.total) connection\(listing.total == 1 ? "" : "s")"
        let speed = rates.total.map { ", \(ByteCount.text($0.down))/s down, \(ByteCount.text($0.up))/s up" } ?? ""
        let omitted = listing.omitted > 0 ? " (the \(listing.items.count) with most bytes are looked at)" : ""
        return "\(listing.clock)Z  \(count)\(omitted)\(speed)  q: quit\(restart.map { "  new daemon \($0)Z" } ?? "")"
    }

    /// From these widths on there is room for more.
    private static let widths = (narrow: 64, way: 100, rule: 140)

    private func connectionColumns(_ columns: Int) -> [Column<ConnectionDocument>] {
        typealias One = Column<ConnectionDocument>
        let rates = rates
        let now = listing.microseconds
        var all = [
            One(title: "DOWN/S", width: 6, isNumber: true) { rates[$0].map { ByteCount.text($0.down) } ?? "-" },
            One(title: "UP/S", width: 6, isNumber: true) { rates[$0].map { ByteCount.text($0.up) } ?? "-" },
        ]
        if columns >= Self.widths.narrow {
            all += [
                One(title: "DOWN", width: 5, isNumber: true) { ByteCount.text($0.bytesDown) },
                One(title: "UP", width: 5, isNumber: true) { ByteCount.text($0.bytesUp) },
                One(title: "AGE", width: 6, isNumber: true) { $0.age(at: now) },
            ]
            if !isOneSandbox { all.append(One(title: "SANDBOX", width: 12) { $0.owner }) }
        }
        all.append(One(title: "DESTINATION", width: nil) { $0.destination })
        if columns >= Self.widths.way { all.append(One(title: "BY", width: 17) { $0.way }) }
        if columns >= Self.widths.rule { all.append(One(title: "RULE", width: 36) { $0.grounds }) }
        return all
    }

    private func refusalColumns(_ columns: Int) -> [Column<RecentRefusals.Refusal>] {
        typealias One = Column<RecentRefusals.Refusal>
        var all = [One(title: "REFUSED", width: 8) { $0.time.clock }]
        if columns >= Self.widths.narrow {
            all.append(One(title: "TIMES", width: 6, isNumber: true) { "\($0.count)" })
            if !isOneSandbox { all.append(One(title: "SANDBOX", width: 12) { $0.sandbox }) }
        }
        all.append(One(title: "DESTINATION", width: nil) { $0.destination })
        if columns >= Self.widths.narrow {
            all.append(One(title: "BECAUSE", width: min(28, columns / 4)) { $0.cause })
        }
        return all
    }

    /// Rows that are no wider than the screen, below a heading.
    private func table<Row>(_ all: [Column<Row>], _ rows: ArraySlice<Row>, _ columns: Int) -> [ScreenLine] {
        let fixed = all.reduce(all.count - 1) { $0 + ($1.width ?? 0) }
        func line(_ text: (Column<Row>) -> String) -> String {
            all.map { column in
                let width = column.width ?? max(columns - fixed, 12)
                let cell = Self.cut(text(column), to: width)
                let space = String(repeating: " ", count: width - cell.count)
                return column.isNumber ? space + cell : cell + space
            }.joined(separator: " ")
        }
        return [ScreenLine(line { $0.title }, .heading, columns: columns)]
            + rows.map { row in ScreenLine(line { $0.cell(row) }, columns: columns) }
    }

    /// The end of a name is the part that its owner had to register: what is cut off is its beginning, which anybody chooses.
    private static func cut(_ text: String, to width: Int) -> String {
        text.count <= width ? text : ".." + text.suffix(max(width - 2, 0))
    }

    // MARK: - On paper

    /// Everything, as a plain table.
    var paper: [String] {
        let header = ["SANDBOX", "DESTINATION", "ADDRESS", "BY", "DOWN", "UP", "AGE", "RULE"]
        let rows = ranked.map { connection in
            [
                connection.owner, connection.destination, connection.address, connection.way,
                "\(connection.bytesDown)", "\(connection.bytesUp)", connection.age(at: listing.microseconds),
                connection.grounds,
            ]
        }
        var lines = TextTable.aligned([header] + rows)
        if listing.omitted > 0 { lines.append("and \(listing.omitted) more, which have passed on less") }
        let refused = refusals.latest.map { refusal in
            [refusal.sandbox, refusal.destination, refusal.time.clock, "\(refusal.count)", refusal.cause]
        }
        guard !refused.isEmpty else { return lines }
        return lines + [""] + TextTable.aligned([["SANDBOX", "REFUSED", "LAST", "TIMES", "BECAUSE"]] + refused)
    }
}
