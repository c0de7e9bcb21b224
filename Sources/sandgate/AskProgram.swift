import CLinux
import Datapath
import EgressCore
import EgressPolicy
import FoundationEssentials
import Glibc
import NetPrimitives
import PolicyDocument
import Reactor
import Sandboxes

/// A program outside the sandbox that is asked about what no rule speaks of: `--ask-command`. It gets each question as a line
/// of JSON, and answers with lines of JSON, in whatever order it likes:
///
///     {"question":1,"host":"example.com","ports":[80,443],"command":"make test","expiresAt":"…"}  ─▶  (QuestionDocument)
///     ◀─ {"question":1,"answer":"once"}
///
/// It is started before the sandbox's command, as this process executes nothing afterwards; and it shares no terminal with the
/// command unless it opens one: what is printed into a terminal by both is no question that anybody could trust.
final class AskProgram: Asker {
    /// Shown to whoever's program answers otherwise.
    private static let example = #"{"question": 1, "answer": "once"}"#
    /// The longest line that is read, in bytes.
    private static let longestLine = 4_096
    /// So much of the command is told at most, in bytes of JSON: with all else that stands beside it a question stays well below
    /// what a pipe takes in one piece or not at all (4,096 bytes, PIPE_BUF in pipe(7)).
    private static let longestCommand = 1_024

    private let sandbox: String
    private let command: String
    private var input: CInt
    private let output: CInt
    private let watcher = DescriptorWatcher()
    private var unread: [UInt8] = []
    private weak var desk: QuestionDesk?

    /// Starts `program`, a command line for the shell, with the standard error of this process. `arguments` are those of the
    /// command that it is asked about, which runs in `sandbox`.
    init(_ program: String, about arguments: [String], in sandbox: String) throws(SetupError) {
        self.sandbox = sandbox
        command = Self.beginning(of: arguments.joined(separator: " "))
        let (theirInput, ourInput) = try Self.pipe()
        let (ourOutput, theirOutput) = try Self.pipe()
        (input, output) = (ourInput, ourOutput)
        defer { [theirInput, theirOutput].forEach { close($0) } }
        // The program waits; we do not.
        for descriptor in [theirInput, theirOutput] { _ = fcntl(descriptor, F_SETFL, 0) }
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_adddup2(&actions, theirInput, STDIN_FILENO)
        posix_spawn_file_actions_adddup2(&actions, theirOutput, STDOUT_FILENO)
        // Signals are as they were for us: what we block and ignore is our own affair.
        var attributes = posix_spawnattr_t()
        posix_spawnattr_init(&attributes)
        defer { posix_spawnattr_destroy(&attributes) }
        var (none, pipes) = (sigset_t(), sigset_t())
        sigemptyset(&none)
        sigemptyset(&pipes)
        sigaddset(&pipes, SIGPIPE)
        posix_spawnattr_setsigmask(&attributes, &none)
        posix_spawnattr_setsigdefault(&attributes, &pipes)
        posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF))
        let words = [strdup("sh"), strdup("-c"), strdup(program), nil]
        defer { words.forEach { free($0) } }
        var process = pid_t()
        let status = posix_spawn(&process, "/bin/sh", &actions, &attributes, words, environ)
        guard status == 0 else {
            throw SetupError("--ask-command: cannot execute /bin/sh: \(String(cString: strerror(status)))")
        }
    }

    private static func pipe() throws(SetupError) -> (CInt, CInt) {
        var pair: [CInt] = [-1, -1]
        guard clinux_pipe(&pair) == 0 else {
            throw SetupError("--ask-command: cannot make a pipe: \(String(cString: strerror(errno)))")
        }
        return (pair[0], pair[1])
    }

    /// The characters of `text` that fit into ``longestCommand`` bytes when JSON escapes what it has to (RFC 8259 7).
    private static func beginning(of text: String) -> String {
        var left = longestCommand
        return String(
            text.prefix { character in
                left -= character.utf8.reduce(0) { $0 + ($1 < 0x20 ? 6 : $1 == 0x22 || $1 == 0x5C ? 2 : 1) }
                return left >= 0
            }
        )
    }

    func attend(_ desk: QuestionDesk, on loop: EventLoop) throws {
        self.desk = desk
        desk.onAsked = { [weak self] in self?.tell($0) }
        watcher.onReadable = { [weak self, unowned loop] watcher in
            guard let self, !read() else { return }
            loop.deregister(watcher)
            end()
        }
        try loop.register(watcher, descriptor: output, interest: .readable)
    }

    func stop() {
        if input >= 0 { close(input) }
        input = -1
    }

    /// It has ended by itself.
    private func end() {
        guard input >= 0 else { return }
        stop()
        Console.error(
            "the program of --ask-command has ended: whatever no rule speaks of is denied when its time is over"
        )
    }

    private func tell(_ question: Questions.Question) {
        let line = QuestionDocument(question, sandbox: sandbox, command: command)
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        guard input >= 0, let bytes = try? Array(encoder.encode(line)) + [UInt8(ascii: "\n")] else { return }
        // What does not fit, since nobody reads, is a question that nobody answers.
        _ = bytes.withUnsafeBytes { write(input, $0.baseAddress, $0.count) }
    }

    /// `false` when nothing more will come.
    private func read() -> Bool {
        var chunk = [UInt8](repeating: 0, count: Self.longestLine)
        while true {
            let count = Glibc.read(output, &chunk, chunk.count)
            if count < 0 { return errno == EAGAIN || errno == EINTR }
            guard count > 0 else { return false }
            unread += chunk.prefix(count)
            while let end = unread.firstIndex(of: UInt8(ascii: "\n")) {
                let line = Array(unread[..<end])
                unread.removeFirst(end + 1)
                if !line.isEmpty { take(line) }
            }
            guard unread.count <= Self.longestLine else {
                Console.error("--ask-command: a line of more than \(Self.longestLine) bytes is no answer")
                return false
            }
        }
    }

    private func take(_ line: [UInt8]) {
        do {
            let answer = try QuestionAnswer.load(bytes: line, file: "--ask-command", now: .current)
            guard let number = answer.question else { throw SetupError("question: missing") }
            let author = answer.author.map { "\($0) (--ask-command)" } ?? "--ask-command"
            guard try desk?.answer(number, QuestionDesk.Answer(answer, by: author)) != nil else {
                throw SetupError("question \(number) is not open")
            }
        } catch let error as DocumentError {
            let problems = error.problems.map(\.description).joined(separator: "\n")
            Console.error("\(problems)\nsandgate: --ask-command: expected a line such as \(Self.example)")
        } catch {
            Console.error("--ask-command: \(error)")
        }
    }
}
