import EgressCore
import EgressPolicy
import NetPrimitives

extension DenialSummary {
    /// Rows and rules that are shown; the audit file has the rest.
    private static let shownRows = 20
    /// Columns where no terminal says how many it has.
    public static let usualWidth = 100

    /// The table of refusals, the policy lines that would allow them unless such a policy `isWritten`, and what no rule can
    /// allow. Ends with a newline; empty when nothing was refused. `width` is in columns.
    public func render(width: Int = usualWidth, colour: Bool, isWritten: Bool = false) -> String {
        guard !isEmpty else { return "" }
        let entries = ranked
        var lines = ["sandgate: " + Style.bold.paint(headline, if: colour)]
        lines += table(Array(entries.prefix(Self.shownRows)), width: width, colour: colour)
        let hidden = entries.dropFirst(Self.shownRows)
        if !hidden.isEmpty || others > 0 {
            let count = hidden.reduce(others) { $0 &+ $1.count }
            lines.append("  ... and \(count) more of \(others > 0 ? "many" : "\(hidden.count)") other kinds")
        }
        if !isWritten { lines += suggestionLines(entries, colour) }
        lines += adviceLines(entries, width, colour)
        return lines.joined(separator: "\n") + "\n"
    }

    /// Whether a rule would allow any of it.
    public var hasSuggestions: Bool { !RuleSuggestion.suggestions(for: ranked).isEmpty }

    private var headline: String {
        guard let passed = passed.text else { return "\(refused.text ?? "nothing") refused" }
        guard let refused = refused.text else { return "\(passed) would be refused if the policy were enforced" }
        return "\(refused) refused; \(passed) would be if the policy were enforced"
    }

    private func table(_ entries: [Entry], width: Int, colour: Bool) -> [String] {
        var rows = [["TIMES", "DESTINATION", "LAYER", "WHY"]]
        rows += entries.map { entry in
            [String(entry.count), entry.kind.destination.text, entry.kind.layer?.rawValue ?? "-", why(entry.kind)]
        }
        let widths = (0..<4).map { column in rows.map { $0[column].utf8.count }.max() ?? 0 }
        // Of what does not fit, the destination gives way: a name made long on purpose must not hide the reason.
        let destination = min(widths[1], max(24, width - 8 - widths[0] - widths[2] - widths[3]))
        return rows.enumerated().map { index, row in
            let times = String(repeating: " ", count: widths[0] - row[0].utf8.count) + row[0]
            let line =
                "  \(times)  \(pad(shorten(row[1], destination), destination))  \(pad(row[2], widths[2]))  \(row[3])"
            return index == 0 ? Style.dim.paint(line, if: colour) : line
        }
    }

    private func why(_ kind: Kind) -> String {
        var text = "\(kind.reason.rawValue): \(kind.reason.phrase)"
        if let rule = kind.rule {
            text = kind.reason == .rule ? "rule: \(rule.place)" : text + " (\(rule.place))"
        }
        return kind.isReportOnly ? text + " (let through)" : text
    }

    private func suggestionLines(_ entries: [Entry], _ colour: Bool) -> [String] {
        let suggestions = RuleSuggestion.suggestions(for: entries)
        guard !suggestions.isEmpty else { return [] }
        // What only report mode lets through needs no line before the policy is enforced.
        let isRefused = !RuleSuggestion.suggestions(for: entries.filter { !$0.kind.isReportOnly }).isEmpty
        let purpose = isRefused ? "To allow these" : "To allow these when the policy is enforced"
        var lines = ["", Style.bold.paint("\(purpose), add to the policy's egress list what you trust:", if: colour)]
        lines += suggestions.prefix(Self.shownRows).map { "  " + $0.line }
        if suggestions.count > Self.shownRows { lines.append("  # ... and \(suggestions.count - Self.shownRows) more") }
        return lines
    }

    /// Each reason that no rule helps against, once, in the order of the table.
    private func adviceLines(_ entries: [Entry], _ width: Int, _ colour: Bool) -> [String] {
        var seen: Set<String> = []
        var lines: [String] = []
        for entry in entries {
            guard let (topic, text) = advice(for: entry.kind), seen.insert(topic).inserted else { continue }
            lines += wrap("\(topic): \(text).", width: width).enumerated().map { ($0 == 0 ? "  " : "    ") + $1 }
        }
        guard !lines.isEmpty else { return [] }
        return ["", Style.bold.paint("No line is suggested for:", if: colour)] + lines
    }

    private func advice(for kind: Kind) -> (topic: String, text: String)? {
        if let text = kind.reason.advice { return (kind.reason.rawValue, text) }
        if let rule = kind.rule, [.denyAlways, .allowAlways].contains(rule.source) {
            return (rule.place, "the operator's rules stand before every policy")
        }
        if let number = kind.destination.ipProtocol, ![6, 17].contains(number), kind.layer != .dns {
            return (protocolName(number), "a policy can allow only TCP and UDP")
        }
        return nil
    }

    private func pad(_ text: String, _ width: Int) -> String {
        text + String(repeating: " ", count: max(0, width - text.utf8.count))
    }

    private func shorten(_ text: String, _ width: Int) -> String {
        // The end says which domain it is and which port.
        text.utf8.count <= width ? text : "..." + text.suffix(width - 3)
    }

    private func wrap(_ text: String, width: Int) -> [String] {
        var lines = [""]
        for word in text.split(separator: " ") {
            if !lines[lines.count - 1].isEmpty, lines[lines.count - 1].utf8.count + 1 + word.utf8.count > width - 4 {
                lines.append("")
            }
            lines[lines.count - 1] += (lines[lines.count - 1].isEmpty ? "" : " ") + word
        }
        return lines
    }
}

extension DenialSummary.Total {
    /// `1 name, 3 connections and 2 packets`; `nil` for nothing.
    var text: String? {
        var parts: [String] = []
        if otherQueries > 0 {
            parts.append("more than \(names.count.counted("name"))")
        } else if !names.isEmpty {
            parts.append(names.count.counted("name"))
        }
        if connections > 0 { parts.append(connections.counted("connection")) }
        if packets > 0 { parts.append(packets.counted("packet")) }
        guard let last = parts.popLast() else { return nil }
        return parts.isEmpty ? last : parts.joined(separator: ", ") + " and " + last
    }
}
