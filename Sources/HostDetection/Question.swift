import CLinux
import Glibc

/// One run of a tool that only reports something: without standard input, with an end to its patience.
struct Question {
    let program: String
    let arguments: [String]
    let directory: String

    private static let patienceMilliseconds = 30_000
    private static let maximumBytes = 4 << 20
    /// What keeps tools from asking people or the network, and their output as it is expected.
    private static let environment = [
        "LC_ALL": "C", "NO_COLOR": "1", "GIT_TERMINAL_PROMPT": "0", "GOTOOLCHAIN": "local", "PYTHONSAFEPATH": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1", "NPM_CONFIG_UPDATE_NOTIFIER": "false", "COLUMNS": "200",
    ]

    private var name: String { arguments.prefix(3).joined(separator: " ") }

    /// Returns what it says on standard output and, when it fails, its last words on the other.
    func ask() throws(DetectionError) -> ToolAnswer {
        var output: (read: CInt, write: CInt) = (-1, -1)
        var errors: (read: CInt, write: CInt) = (-1, -1)
        guard Self.makePipe(&output), Self.makePipe(&errors) else { throw failure(String(cString: strerror(errno))) }
        defer {
            close(output.read)
            close(errors.read)
        }
        var pid: pid_t = 0
        let status = spawn(&pid, output: output.write, errors: errors.write)
        close(output.write)
        close(errors.write)
        guard status == 0 else { throw failure(String(cString: strerror(status))) }
        let (said, complained, isComplete) = Self.gather(output.read, errors.read)
        if !isComplete { kill(-pid, SIGKILL) }
        var exit: CInt = 0
        while waitpid(pid, &exit, 0) < 0, errno == EINTR {}
        guard isComplete else { throw failure("no answer within \(Self.patienceMilliseconds / 1_000) s") }
        var failed: DetectionError?
        if exit != 0 {
            let words = String(decoding: complained, as: UTF8.self).split(separator: "\n").last.map { ": \($0)" } ?? ""
            failed = failure((exit & 0x7f == 0 ? "exit status \(exit >> 8)" : "signal \(exit & 0x7f)") + words)
        }
        return ToolAnswer(output: String(decoding: said, as: UTF8.self), failure: failed)
    }

    private func failure(_ cause: String) -> DetectionError {
        .failed(
            command: name,
            cause: String(cause.unicodeScalars.filter { $0.value >= 0x20 && $0.value != 0x7f }.prefix(200))
        )
    }

    private static func makePipe(_ ends: inout (read: CInt, write: CInt)) -> Bool {
        var descriptors: [CInt] = [-1, -1]
        guard pipe(&descriptors) == 0 else { return false }
        for descriptor in descriptors { _ = fcntl(descriptor, F_SETFD, FD_CLOEXEC) }
        ends = (descriptors[0], descriptors[1])
        return true
    }

    private func spawn(_ pid: inout pid_t, output: CInt, errors: CInt) -> CInt {
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0)
        posix_spawn_file_actions_adddup2(&actions, output, STDOUT_FILENO)
        posix_spawn_file_actions_adddup2(&actions, errors, STDERR_FILENO)
        clinux_spawn_in_directory(&actions, directory)
        var attributes = posix_spawnattr_t()
        posix_spawnattr_init(&attributes)
        defer { posix_spawnattr_destroy(&attributes) }
        // What we ignore is not ignored by what we start; a group of its own can be ended as a whole.
        var signals = sigset_t()
        sigemptyset(&signals)
        sigaddset(&signals, SIGPIPE)
        sigaddset(&signals, SIGXFSZ)
        posix_spawnattr_setsigdefault(&attributes, &signals)
        posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP))
        var words = arguments.map { strdup($0) } + [nil]
        var variables = environmentLines() + [nil]
        defer { (words + variables).forEach { free($0) } }
        return posix_spawn(&pid, program, &actions, &attributes, &words, &variables)
    }

    /// Copies, which are the caller's to free: what is ours, and of this process's what is not, as it is.
    private func environmentLines() -> [UnsafeMutablePointer<CChar>?] {
        var lines: [UnsafeMutablePointer<CChar>?] = []
        var pointer = environ
        while let line = pointer.pointee {
            let isOurs = Self.environment.keys.contains { String(cString: line).hasPrefix("\($0)=") }
            if !isOurs { lines.append(strdup(line)) }
            pointer += 1
        }
        return lines + Self.environment.sorted { $0.key < $1.key }.map { strdup("\($0)=\($1)") }
    }

    /// Reads both streams to their ends; not complete when patience or space has.
    private static func gather(_ output: CInt, _ errors: CInt) -> ([UInt8], [UInt8], isComplete: Bool) {
        var gathered: [[UInt8]] = [[], []]
        var polls = [output, errors].map { pollfd(fd: $0, events: Int16(POLLIN), revents: 0) }
        var chunk = [UInt8](repeating: 0, count: 64 << 10)
        let deadline = now() + patienceMilliseconds
        while polls.contains(where: { $0.fd >= 0 }) {
            let left = deadline - now()
            guard left > 0, gathered.allSatisfy({ $0.count < maximumBytes }) else {
                return (gathered[0], gathered[1], false)
            }
            guard poll(&polls, nfds_t(polls.count), CInt(left)) > 0 else { continue }
            for index in polls.indices where polls[index].fd >= 0 && polls[index].revents != 0 {
                let count = read(polls[index].fd, &chunk, chunk.count)
                if count > 0 {
                    gathered[index] += chunk.prefix(count)
                } else if count == 0 || errno != EINTR {
                    polls[index].fd = -1
                }
            }
        }
        return (gathered[0], gathered[1], true)
    }

    private static func now() -> Int {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return Int(time.tv_sec) * 1_000 + Int(time.tv_nsec) / 1_000_000
    }
}
