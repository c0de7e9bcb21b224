import CLinux
import Glibc
import Synchronization

/// What a person sees. Standard output carries only what was asked for; everything else goes to standard error.
enum Console {
    /// Whether standard error is a terminal that shows colour.
    static var hasColour: Bool { isatty(STDERR_FILENO) == 1 && getenv("NO_COLOR") == nil }

    /// How many columns of standard error a person sees; `nil` where it is no terminal, or one that does not say.
    static var columns: Int? {
        var (columns, rows): (CInt, CInt) = (0, 0)
        return clinux_screen_size(STDERR_FILENO, &columns, &rows) == 0 ? Int(columns) : nil
    }

    /// How text gets to standard error while an event loop runs, which must not wait for its reader.
    private static let background = Mutex<BackgroundText?>(nil)

    /// One line to standard error, named as ours.
    static func error(_ text: String) {
        errorText("sandgate: \(text)\n")
    }

    /// Text to standard error as it is, in whole lines.
    static func errorText(_ text: String) {
        let isTaken = background.withLock { background in
            background?.write(text)
            return background != nil
        }
        if !isTaken { write(STDERR_FILENO, Array(text.utf8)[...]) }
    }

    /// One line to standard output.
    static func output(_ text: String) {
        write(STDOUT_FILENO, Array("\(text)\n".utf8)[...])
    }

    /// From now on nobody waits for the reader of standard error.
    static func writeInBackground() throws {
        try background.withLock { $0 = try BackgroundText() }
    }

    /// Nothing else has to be done any more: what is written now waits for room, for a moment.
    static func beginWaiting() {
        background.withLock { $0?.beginWaiting() }
    }

    /// Before the end of the process: waits for what is still to be written, for a moment.
    static func finish() {
        background.withLock { $0?.finish() }
    }

    /// Unbuffered, so that lines keep their order with what other processes print to the same terminal. A reader that
    /// has gone is nobody to tell. What shares the open file may have made it non-blocking, as node does.
    static func write(_ descriptor: CInt, _ bytes: ArraySlice<UInt8>) {
        var bytes = bytes
        while !bytes.isEmpty {
            let count = bytes.withUnsafeBytes { Glibc.write(descriptor, $0.baseAddress, $0.count) }
            if count < 0 {
                if errno == EINTR { continue }
                guard errno == EAGAIN else { return }
                var room = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
                poll(&room, 1, -1)
                continue
            }
            bytes = bytes.dropFirst(count)
        }
    }
}
