import Glibc

/// What a person sees. Standard output carries only what was asked for; everything else goes to standard error.
enum Console {
    /// Whether standard error is a terminal that shows colour.
    static var hasColour: Bool { isatty(STDERR_FILENO) == 1 && getenv("NO_COLOR") == nil }

    /// One line to standard error, named as ours.
    static func error(_ text: String) {
        write(STDERR_FILENO, "sandgate: \(text)\n")
    }

    /// Text to standard error as it is.
    static func errorText(_ text: String) {
        write(STDERR_FILENO, text)
    }

    /// One line to standard output.
    static func output(_ text: String) {
        write(STDOUT_FILENO, text + "\n")
    }

    /// Unbuffered, so that lines keep their order with what other processes print to the same terminal. A reader that
    /// has gone is nobody to tell.
    private static func write(_ descriptor: CInt, _ text: String) {
        var bytes = Array(text.utf8)[...]
        while !bytes.isEmpty {
            let count = bytes.withUnsafeBytes { Glibc.write(descriptor, $0.baseAddress, $0.count) }
            if count < 0 {
                if errno == EINTR { continue }
                return
            }
            bytes = bytes.dropFirst(count)
        }
    }
}
