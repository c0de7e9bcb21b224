import CLinux
import Glibc

/// The terminal as a screen of our own, from ``init()`` to ``leave()``. It is given back on every other way out as well, as
/// `clinux_screen_enter` says.
struct Screen {
    /// Whether there is a person: a terminal to type into, and one to look at that can be written to at any place.
    static var isThere: Bool {
        guard isatty(STDIN_FILENO) == 1, isatty(STDOUT_FILENO) == 1, let kind = getenv("TERM") else { return false }
        return !["", "dumb"].contains(String(cString: kind))
    }

    /// Columns and rows of a terminal that does not say.
    private static let usualSize: (CInt, CInt) = (80, 24)

    /// Takes the terminal of standard output, and keys from standard input.
    init() throws {
        guard clinux_screen_enter(STDOUT_FILENO) == 0 else {
            throw SetupError("cannot take the terminal: \(String(cString: strerror(errno)))")
        }
    }

    /// Gives the terminal back.
    func leave() {
        clinux_screen_leave()
    }

    /// Columns and rows, as they are now.
    var size: (columns: Int, rows: Int) {
        var (columns, rows) = Self.usualSize
        _ = clinux_screen_size(STDOUT_FILENO, &columns, &rows)
        return (Int(columns), Int(rows))
    }

    /// Shows lines from the top, at least one and no more than there are rows, each no longer than a row. Everything else is
    /// empty.
    func show(_ lines: [ScreenLine], colour: Bool) {
        var text = ""
        for (number, line) in lines.enumerated() {
            // The last one takes away what stands below it as well.
            let erased = number == lines.count - 1 ? "J" : "2K"
            text += "\u{1B}[\(number + 1);1H\u{1B}[\(erased)" + line.painted(if: colour)
        }
        // One write: nobody sees half of it.
        Console.write(STDOUT_FILENO, Array(text.utf8)[...])
    }

    /// Keys that were pressed, at least one; empty when there will be none any more.
    static func readKeys() -> [UInt8] {
        var keys = [UInt8](repeating: 0, count: 64)
        let count = read(STDIN_FILENO, &keys, keys.count)
        return count > 0 ? Array(keys.prefix(count)) : []
    }
}

/// A row of a screen: printable ASCII, in one style.
struct ScreenLine {
    /// How it is set off.
    enum Emphasis: String {
        case none = "0"
        case strong = "1"
        case heading = "7"
    }

    let text: String
    let emphasis: Emphasis

    /// A row of so many columns at most. A heading takes all of them.
    /// Whatever the text holds that is not to be printed is a question mark; it is escaped by those who know what it is.
    init(_ text: String, _ emphasis: Emphasis = .none, columns: Int) {
        let bytes = text.utf8.prefix(columns).map { (0x20...0x7E).contains($0) ? $0 : UInt8(ascii: "?") }
        let cut = String(decoding: bytes, as: UTF8.self)
        let rest = emphasis == .heading ? String(repeating: " ", count: max(columns - cut.count, 0)) : ""
        self.text = cut + rest
        self.emphasis = emphasis
    }

    fileprivate func painted(if colour: Bool) -> String {
        emphasis == .none || !colour ? text : "\u{1B}[\(emphasis.rawValue)m\(text)\u{1B}[0m"
    }
}
