import Audit
import CLinux
import Datapath
import EgressCore
import Glibc
import NetPrimitives
import PolicyDocument
import Reactor
import Sandboxes

/// A terminal in which a person is asked about what no rule of a run's policy speaks of: `--ask-terminal`.
///
/// It is another one than the command has, which could read what is typed there and write over what is shown. And it is one
/// that the command does not find: a pseudo-terminal of `/dev/pts` or a virtual console, of which a sandbox sees its own alone.
///
/// Who closes the terminal denies all that is asked, then and later.
final class AskTerminal: EventSource, Asker {
    private static let option = "--ask-terminal"
    /// So much of the command is shown, in characters.
    private static let longestCommand = 200

    private let terminal: QuestionTerminal
    private let sandbox: String
    private var isRegistered = false
    private var hasLeft = false
    private weak var desk: QuestionDesk?
    private weak var loop: EventLoop?

    /// Opens the terminal at `path` for questions about the command `arguments`, which runs in `sandbox`.
    init(_ path: String, about arguments: [String], in sandbox: String) throws(SetupError) {
        let dialog = QuestionDialog(ofMany: false, span: "until the run ends")
        terminal = QuestionTerminal(try Self.open(path), dialog)
        self.sandbox = sandbox
        super.init()
        terminal.onAnswer = { [weak self] in self?.answer($0, $1) ?? .late }
        terminal.onEnd = { [weak self] in self?.terminal.take("deny") }
        let command = Printable.text(arguments.joined(separator: " "), limit: Self.longestCommand)
        terminal.say("\nsandgate: questions of \(sandbox) are asked here: \(command)\n")
    }

    func attend(_ desk: QuestionDesk, on loop: EventLoop) throws {
        self.desk = desk
        self.loop = loop
        desk.onAsked = { [weak self] in self?.asked($0) }
        desk.onEnded = { [weak self] _ in self?.update() }
        try loop.register(self, descriptor: terminal.descriptor, interest: interest)
        isRegistered = true
    }

    func stop() {
        guard !hasLeft else { return }
        terminal.say("\nsandgate: the run has ended\n")
        leave()
    }

    override func handle(_ readiness: Readiness) {
        guard terminal.handle() else { return hangUp() }
        renewInterest()
    }

    // MARK: - Questions

    private func asked(_ question: Questions.Question) {
        if hasLeft { deny(question) } else { update() }
    }

    private func update() {
        guard !hasLeft, let desk else { return }
        terminal.update(desk.open.map { QuestionDocument($0, sandbox: sandbox) }, keepsAnswers: desk.keep != nil)
        renewInterest()
    }

    private func answer(_ question: QuestionDocument, _ typed: TypedAnswer) -> QuestionDialog.Outcome {
        do {
            let answer = QuestionDesk.Answer(typed.answer, by: Self.option)
            return try desk?.answer(question.question, answer) == nil ? .late : .done
        } catch {
            return .failed(QuestionDialog.lines(error))
        }
    }

    private func deny(_ question: Questions.Question) {
        _ = try? desk?.answer(question.number, QuestionDesk.Answer(.deny, by: "\(Self.option), which has gone"))
    }

    // MARK: - The loop

    private var interest: Interest { terminal.wantsToWrite ? [.readable, .writable] : .readable }

    private func renewInterest() {
        if isRegistered { loop?.update(self, interest: interest) }
    }

    /// Nobody will answer any more.
    private func hangUp() {
        guard !hasLeft else { return }
        Console.error("the terminal of \(Self.option) has gone: whatever no rule speaks of is denied")
        leave()
        for question in desk?.open ?? [] { deny(question) }
    }

    private func leave() {
        hasLeft = true
        terminal.leave()
        if isRegistered { loop?.deregister(self) }
        isRegistered = false
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
}
