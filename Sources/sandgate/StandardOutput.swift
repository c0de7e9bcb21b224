import Glibc

/// Standard output for what may be much: gathered into large writes, and a failure ends the command.
struct StandardOutput {
    private var buffer: [UInt8] = []

    /// Whether it is a terminal that shows colour.
    static var hasColour: Bool { isatty(STDOUT_FILENO) == 1 && getenv("NO_COLOR") == nil }

    /// Adds a line.
    mutating func line(_ bytes: some Collection<UInt8>) throws(SetupError) {
        buffer.append(contentsOf: bytes)
        buffer.append(UInt8(ascii: "\n"))
        if buffer.count >= 64 << 10 { try flush() }
    }

    /// Adds a line.
    mutating func line(_ text: String) throws(SetupError) {
        try line(text.utf8)
    }

    /// Writes what has gathered.
    mutating func flush() throws(SetupError) {
        var written = 0
        while written < buffer.count {
            let count = buffer[written...].withUnsafeBytes { write(STDOUT_FILENO, $0.baseAddress, $0.count) }
            if count >= 0 {
                written += count
            } else if errno != EINTR {
                throw SetupError("cannot write to standard output: \(String(cString: strerror(errno)))")
            }
        }
        buffer.removeAll(keepingCapacity: true)
    }
}
