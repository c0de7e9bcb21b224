import Audit
import CLinux
import Datapath
import EgressCore
import FoundationEssentials
import Glibc
import NetPrimitives
import PolicyDocument
import Reactor
import Sandboxes

/// A terminal in which a person is asked about what no rule speaks of: `--ask-terminal`. One question at a time:
///
///     #3 example.com, ports 80 and 443, denied in 30 s
///     once, allow, allow 10m or deny? once
///     example.com is allowed once
///
/// It is another one than the command has, which could read what is typed there and write over what is shown. And it is one
/// that the command does not find: a pseudo-terminal of `/dev/pts` or a virtual console, of which a sandbox sees its own alone.
///
/// What is typed before a question can have been read answers nothing, since the sandbox chooses when it asks. Who closes the
/// terminal denies all that is asked, then and later.
final class AskTerminal: EventSource, Asker {
    private static let option = "--ask-terminal"
    /// What is typed within this time after a question has appeared is not an answer to it.
    private static let momentNanoseconds: UInt64 = 700_000_000
    /// The longest line that is read, in bytes; the kernel's lines are no longer (N_TTY_BUF_SIZE).
    private static let longestLine = 4_096
    /// While more than this many bytes wait for room, what is no question is not said.
    private static let mostUnwritten = 4_096
    /// So much of the command is shown, in characters.
    private static let longestCommand = 200

    private let descriptor: CInt
    private var isRegistered = false
    private var isClosed = false
    /// Whether an answer is being carried out, by which other questions may end and begin.
    private var isAnswering = false
    private var unread: [UInt8] = []
    /// What the terminal has had no room for.
    private var unwritten: [UInt8] = []
    /// The question that is shown, and since when all of it is.
    private var shown: (question: Questions.Question, since: MonotonicTime?)?
    private weak var desk: QuestionDesk?
    private weak var loop: EventLoop?

    /// Opens the terminal at `path` for questions about the command `arguments`, which runs in `sandbox`.
    init(_ path: String, about arguments: [String], in sandbox: String) throws(SetupError) {
        descriptor = try Self.open(path)
        super.init()
        let command = Printable.text(arguments.joined(separator: " "), limit: Self.longestCommand)
        say("\nsandgate: questions of \(sandbox) are asked here: \(command)\n")
    }

    deinit { close(descriptor) }

    func attend(_ desk: QuestionDesk, on loop: EventLoop) throws {
        self.desk = desk
        self.loop = loop
        desk.onAsked = { [weak self] in self?.asked($0) }
        desk.onEnded = { [weak self] in self?.ended($0) }
        try loop.register(self, descriptor: descriptor, interest: interest)
        isRegistered = true
    }

    func stop() {
        guard !isClosed else { return }
        say("\nsandgate: the run has ended\n")
        leave()
    }

    override func handle(_ readiness: Readiness) {
        guard write(), read() else { return hangUp() }
    }
}

// MARK: - The terminal

extension AskTerminal {
    private static func open(_ path: String) throws(SetupError) -> CInt {
        let descriptor = Glibc.open(path, O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK)
        guard descriptor >= 0 else {
            throw SetupError("\(option): cannot open \(path): \(String(cString: strerror(errno)))")
        }
        guard let problem = problem(with: descriptor) else { return descriptor }
        close(descriptor)
        throw SetupError("\(option) \(path): \(problem)")
    }

    /// What keeps a person from being asked there; `nil` if nothing does.
    private static func problem(with descriptor: CInt) -> String? {
        let device = clinux_terminal_device(descriptor)
        guard isatty(descriptor) == 1, device >= 0 else {
            return "expected a terminal, such as tty(1) names in its window"
        }
        let used = [
            ("standard input", STDIN_FILENO), ("standard output", STDOUT_FILENO), ("standard error", STDERR_FILENO),
        ]
        for (name, other) in used where clinux_terminal_device(other) == device {
            return "it is the command's \(name): expected another terminal, which the command cannot use"
        }
        let controlling = Glibc.open("/dev/tty", O_RDWR | O_NOCTTY | O_CLOEXEC)
        if controlling >= 0 {
            defer { close(controlling) }
            guard clinux_terminal_device(controlling) != device else {
                return "it is the command's /dev/tty: expected another terminal, which the command cannot use"
            }
        }
        // Of these the sandbox sees none; where else a device may be found is not known.
        guard let name = ttyname(descriptor).map({ String(cString: $0) }),
            ["/dev/pts/", "/dev/tty"].contains(where: { prefix in
                name.hasPrefix(prefix) && !name.dropFirst(prefix.count).isEmpty
                    && name.dropFirst(prefix.count).utf8.allSatisfy { (0x30...0x39).contains($0) }
            })
        else { return "expected a pseudo-terminal below /dev/pts, or a virtual console (/dev/tty1, …)" }
        return nil
    }

    private var interest: Interest { unwritten.isEmpty ? .readable : [.readable, .writable] }

    private func say(_ text: String) {
        guard !isClosed, unwritten.count < Self.mostUnwritten else { return }
        unwritten += Array(text.utf8)
        _ = write()
    }

    /// `false` when the terminal has gone.
    private func write() -> Bool {
        while !unwritten.isEmpty {
            let count = Glibc.write(descriptor, unwritten, unwritten.count)
            if count < 0 {
                if errno == EINTR { continue }
                guard errno == EAGAIN else { return false }
                break
            }
            unwritten.removeFirst(count)
        }
        if isRegistered { loop?.update(self, interest: interest) }
        guard unwritten.isEmpty else { return true }
        if shown == nil { showNext() } else if shown?.since == nil { shown?.since = loop?.now }
        return true
    }

    /// Reads what was typed. `false` when the terminal has gone.
    private func read() -> Bool {
        var chunk = [UInt8](repeating: 0, count: Self.longestLine)
        while !isClosed {
            let count = Glibc.read(descriptor, &chunk, chunk.count)
            if count < 0 {
                if errno == EINTR { continue }
                return errno == EAGAIN
            }
            guard count > 0 else {
                // Ctrl-D at the begin of a line, or nobody is there any more.
                var state = pollfd(fd: descriptor, events: 0, revents: 0)
                guard poll(&state, 1, 0) == 0 else { return false }
                take("deny")
                continue
            }
            unread += chunk.prefix(count)
            while let end = unread.firstIndex(where: { $0 == 0x0A || $0 == 0x0D }) {
                let line = String(decoding: unread[..<end], as: UTF8.self)
                unread.removeFirst(end + 1)
                take(line)
            }
            if unread.count > Self.longestLine { unread = [] }
        }
        return true
    }

    /// Nobody will answer any more.
    private func hangUp() {
        guard !isClosed else { return }
        Console.error("the terminal of \(Self.option) has gone: whatever no rule speaks of is denied")
        leave()
        for question in desk?.open ?? [] { deny(question) }
    }

    private func leave() {
        isClosed = true
        shown = nil
        if isRegistered { loop?.deregister(self) }
        isRegistered = false
    }
}

// MARK: - Questions

extension AskTerminal {
    private func asked(_ question: Questions.Question) {
        if isClosed { deny(question) } else { showNext() }
    }

    private func ended(_ number: UInt64) {
        guard shown?.question.number == number else { return }
        let name = name
        shown = nil
        say("\n\(name) is not asked about any more\n")
        showNext()
    }

    /// Shows the oldest question if none is shown, and the terminal has taken all that was said before: what nobody has seen
    /// nobody answers.
    private func showNext() {
        guard !isClosed, !isAnswering, shown == nil, unwritten.isEmpty, let question = desk?.open.first else { return }
        // What was typed so far was typed about something else.
        tcflush(descriptor, TCIFLUSH)
        unread = []
        shown = (question, nil)
        let ports = question.subject.ports.map(\.description)
        let places = (ports.count == 1 ? "port " : "ports ") + ports.joined(separator: " and ")
        let seconds = max(0, (question.expiresAt.microseconds - WallTime.current.microseconds) / 1_000_000)
        say("\n#\(question.number) \(name), \(places), denied in \(seconds) s\n")
        prompt()
    }

    private func prompt() { say("once, allow, allow 10m\(desk?.keep == nil ? "" : ", always") or deny? ") }

    /// The name that is asked about, whose characters the sandbox chose.
    private var name: String { shown.map { Printable.name("\($0.question.subject.name)") } ?? "" }

    private func take(_ line: String) {
        guard let (question, since) = shown, let loop else { return }
        guard let since, loop.now >= since.advanced(byNanoseconds: Self.momentNanoseconds) else {
            say("that was too soon to be an answer to #\(question.number)\n")
            return prompt()
        }
        let name = name
        do {
            let answer = try TypedAnswer(line).read()
            // It ends by the answer, and is not told of as if it had ended otherwise.
            (shown, isAnswering) = (nil, true)
            defer { isAnswering = false }
            guard try desk?.answer(question.number, QuestionDesk.Answer(answer, by: Self.option)) != nil else { return }
            say("\(name) is \(answer.phrase)\n")
        } catch {
            if desk?.open.contains(where: { $0.number == question.number }) ?? false { shown = (question, since) }
            say(error.lines)
            if shown != nil { prompt() }
        }
        showNext()
    }

    private func deny(_ question: Questions.Question) {
        _ = try? desk?.answer(question.number, QuestionDesk.Answer(.deny, by: "\(Self.option), which has gone"))
    }
}

/// What a person types for an answer: `once`, `deny`, `allow`, `always`, with ports and a duration in any order behind it.
private struct TypedAnswer: Encodable {
    private let answer: String
    private var ttl: String?
    private var ports: [String]?

    init(_ line: String) throws(SetupError) {
        var words = line.split(whereSeparator: { $0 == " " || $0 == "\t" || $0 == "," }).map { $0.lowercased() }
        guard let word = words.first, ["once", "deny", "allow", "always"].contains(word) else {
            throw SetupError(
                "expected once, deny, allow or always, with a duration (10m) or ports (8443) behind it if need be"
            )
        }
        answer = word
        words.removeFirst()
        for word in words {
            if PortRange(parsing: word) != nil { ports = (ports ?? []) + [word] } else { ttl = word }
        }
    }

    /// The answer as any other that is read; the error says what is wrong.
    func read() throws -> QuestionAnswer {
        try QuestionAnswer.load(bytes: Array(try JSONEncoder().encode(self)), file: "the answer", now: .current)
    }
}

extension QuestionAnswer {
    /// What it comes to, behind "is".
    fileprivate var phrase: String {
        switch choice {
        case .deny: "denied"
        case .once: "allowed once"
        case .allow(nil): "allowed until the run ends"
        case .allow(let until?): "allowed until \(Timestamp.text(of: until))"
        case .always: "allowed for always"
        }
    }
}

extension Error {
    /// What is wrong, for a terminal.
    fileprivate var lines: String {
        let messages = (self as? DocumentError)?.problems.map { "\($0.path): \($0.message)" } ?? ["\(self)"]
        return messages.map { Printable.text($0, limit: 300) + "\n" }.joined()
    }
}
