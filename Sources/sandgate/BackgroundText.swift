import CLinux
import Confinement
import Glibc
import NetPrimitives

/// Text for standard error that whoever writes it never waits for: a thread waits instead.
///
///     write ──▶ a pipe, never waited for ──▶ thread ──▶ standard error
///
/// The pipe is the queue: the kernel bounds it and keeps its order. What finds no room is counted and told of as soon
/// as something fits again. Standard error itself cannot be made non-blocking: the command has the same open file.
///
/// Used by one thread, beside the one it starts.
final class BackgroundText {
    /// What may wait: enough for a burst of lines, beside what the reader's own pipe holds.
    private static let capacity: CInt = 16 << 10
    /// Longer lines are cut: the kernel puts PIPE_BUF (4096) bytes into a pipe whole or not at all.
    private static let maximumLineBytes = 4_000
    /// How long the end waits for a reader.
    private static let patienceNanoseconds: Int64 = 2_000_000_000

    private let pipe: CInt
    private let thread: pthread_t
    private var unshownLines = 0
    /// When the patience ends, by the monotonic clock; `nil` while nobody may wait.
    private var deadline: Int64?

    /// Starts the thread, with the caller's signals blocked.
    init() throws {
        var ends: [CInt] = [-1, -1]
        guard clinux_pipe(&ends) == 0 else { throw Self.failure("make a pipe", errno) }
        // The thread waits.
        _ = fcntl(ends[0], F_SETFL, 0)
        _ = clinux_set_pipe_size(ends[1], Self.capacity)
        var thread = pthread_t()
        let status = pthread_create(
            &thread,
            nil,
            { argument in
                BackgroundText.pump(from: CInt(Int(bitPattern: argument)))
                return nil
            },
            UnsafeMutableRawPointer(bitPattern: Int(ends[0]))
        )
        guard status == 0 else {
            ends.forEach { close($0) }
            throw Self.failure("start a thread", status)
        }
        self.pipe = ends[1]
        self.thread = thread
    }

    private static func failure(_ what: String, _ code: CInt) -> SetupError {
        SetupError("cannot \(what) for standard error: \(String(cString: strerror(code)))")
    }

    /// Takes lines. Without waiting, until ``beginWaiting()``.
    func write(_ text: String) {
        guard !text.isEmpty else { return }
        let lines = text.split(separator: "\n", omittingEmptySubsequences: false)
        for line in lines.dropLast(text.hasSuffix("\n") ? 1 : 0) {
            // In one piece with what was missing before it: shorter than a line, that might find room alone.
            if queue(notice + line.utf8.prefix(Self.maximumLineBytes) + [UInt8(ascii: "\n")]) {
                unshownLines = 0
            } else {
                unshownLines += 1
            }
        }
    }

    /// Nothing else has to be done any more: from now on, who writes waits for room, for a moment altogether.
    func beginWaiting() {
        if deadline == nil { deadline = Self.now + Self.patienceNanoseconds }
    }

    private static var now: Int64 {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return Int64(time.tv_sec) * 1_000_000_000 + Int64(time.tv_nsec)
    }

    /// Waits until everything has been written, or the patience ends; then the rest is given up. Nothing is written
    /// afterwards.
    func finish() {
        beginWaiting()
        _ = queue(notice)
        close(pipe)
        if let deadline { _ = clinux_join(thread, deadline) }
    }

    /// The line that says what is missing, if anything is.
    private var notice: [UInt8] {
        guard unshownLines > 0 else { return [] }
        let lines = unshownLines.counted("line")
        return Array("sandgate: \(lines) not shown: nobody read them\n".utf8)
    }

    /// Puts bytes into the pipe; returns whether there was room.
    private func queue(_ bytes: [UInt8]) -> Bool {
        while Glibc.write(pipe, bytes, bytes.count) < 0 {
            if errno == EINTR { continue }
            guard errno == EAGAIN, waitForRoom() else { return false }
        }
        return true
    }

    private func waitForRoom() -> Bool {
        guard let deadline else { return false }
        let left = (deadline - Self.now) / 1_000_000
        guard left > 0 else { return false }
        var poll = pollfd(fd: pipe, events: Int16(POLLOUT), revents: 0)
        return Glibc.poll(&poll, 1, CInt(left)) != 0
    }

    /// What the thread does, until the other end is closed. It takes no privilege.
    private static func pump(from pipe: CInt) {
        do { try OwnPrivileges.keep([]) } catch { fatalError("\(error)") }
        var chunk = [UInt8](repeating: 0, count: Int(PIPE_BUF))
        while true {
            let count = read(pipe, &chunk, chunk.count)
            if count < 0, errno == EINTR { continue }
            guard count > 0 else { break }
            Console.write(STDERR_FILENO, chunk[..<count])
        }
        close(pipe)
    }
}
