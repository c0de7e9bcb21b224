/// Text from a record in a comment: what the sandbox chose must not end the comment's line, move a cursor or hide.
enum CommentText {
    /// `text` with everything but printable ASCII escaped as `\u{a}`, cut to `limit` characters. An ampersand is, too:
    /// whoever refuses YAML's anchors without reading comments would take it for one.
    static func escaped(_ text: some StringProtocol, limit: Int = 100) -> String {
        var shown = ""
        for scalar in text.unicodeScalars {
            guard shown.utf8.count < limit else { return shown + "..." }
            if (0x20...0x7E).contains(scalar.value), scalar != "\\", scalar != "&" {
                shown.unicodeScalars.append(scalar)
            } else {
                shown += scalar == "\\" ? "\\\\" : "\\u{\(String(scalar.value, radix: 16))}"
            }
        }
        return shown
    }

    /// `once`, `3 times`.
    static func times(_ count: UInt64) -> String { count == 1 ? "once" : "\(count) times" }

    /// An amount of bytes for people: `812 bytes`, `3.2 MiB`.
    static func bytes(_ count: UInt64) -> String {
        var unit = 0
        var rest = Double(count)
        while rest >= 1024, unit < 4 {
            rest /= 1024
            unit += 1
        }
        guard unit > 0 else { return "\(count) bytes" }
        let tenths = UInt64(rest * 10)
        return "\(tenths / 10).\(tenths % 10) \(["KiB", "MiB", "GiB", "TiB"][unit - 1])"
    }
}
