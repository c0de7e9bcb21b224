/// Text of a document in a comment or message of ours: one line, printable, not longer than a line of a terminal or two.
enum Excerpt {
    /// `text` with everything but printable ASCII escaped as `\u{1b}`, cut to `limit` bytes.
    static func text(_ text: some StringProtocol, limit: Int = 200) -> String {
        var shown = ""
        for scalar in text.unicodeScalars {
            guard shown.utf8.count < limit else { return shown + "..." }
            switch scalar.value {
            case 0x20...0x7E: shown.unicodeScalars.append(scalar)
            default: shown += "\\u{\(String(scalar.value, radix: 16))}"
            }
        }
        return shown
    }
}
