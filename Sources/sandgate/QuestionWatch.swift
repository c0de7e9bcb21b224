import FoundationEssentials
import Glibc
import PolicyDocument
import Sandboxes

/// `sandgate questions --follow`: a person answers a daemon's questions in a terminal, as they come. It outlives the daemon:
/// the next one asks anew what still waits.
final class QuestionWatch {
    /// Whose questions are asked, and who answers.
    struct Settings {
        let client: APIClient
        /// Only of this sandbox.
        let sandbox: String?
        /// Who answers, by their own account.
        let author: String?
    }

    /// A daemon that says nothing for so long hangs.
    private static let patienceSeconds = 10
    /// How often it is looked at what is asked, where no record tells of a change.
    private static let interval = Duration.seconds(5)
    /// How often it is tried whether there is a daemon again.
    private static let retryInterval = Duration.seconds(1)

    private let settings: Settings
    private let client: APIClient
    private let terminal: QuestionTerminal
    private var events: DaemonEvents
    private var next = ContinuousClock.now
    private var hasLeft = false

    /// Takes the terminal that the process is controlled from, and asks the daemon. Throws what is wrong with either.
    init(_ settings: Settings) throws {
        self.settings = settings
        var client = settings.client
        client.patienceSeconds = Self.patienceSeconds
        self.client = client
        let dialog = QuestionDialog(ofMany: settings.sandbox == nil, span: "in its sandbox")
        terminal = QuestionTerminal(try Self.openTerminal(), dialog)
        let filter = try settings.sandbox.map { "&sandbox=\(try SandboxPath.component($0))" } ?? ""
        events = try DaemonEvents(client, "/v1/audit/stream?event=question.*\(filter)")
        terminal.onAnswer = { [unowned self] in answer($0, $1) }
        terminal.onEnd = { [unowned self] in leave() }
    }

    /// A description of its own: that it does not wait is nobody else's affair who has the terminal.
    private static func openTerminal() throws -> CInt {
        guard isatty(STDIN_FILENO) == 1, isatty(STDOUT_FILENO) == 1 else {
            throw SetupError(
                "--follow: expected a terminal, in which a person answers; without it the questions are listed, "
                    + "and sandgate answer answers"
            )
        }
        let descriptor = open("/dev/tty", O_RDWR | O_CLOEXEC | O_NONBLOCK)
        guard descriptor >= 0 else {
            throw SetupError("--follow: cannot open /dev/tty: \(String(cString: strerror(errno)))")
        }
        return descriptor
    }

    /// Asks until somebody leaves, or the terminal has gone. Throws what the daemon refuses: when the sandbox is no more.
    func run() throws {
        let whose = settings.sandbox.map { "of \($0)" } ?? "of all sandboxes"
        terminal.say("sandgate: questions \(whose) are asked here; Ctrl-C leaves, and answers nothing\n")
        try refresh()
        while !hasLeft {
            let wanted = Int16(terminal.wantsToWrite ? POLLIN | POLLOUT : POLLIN)
            var descriptors = [
                pollfd(fd: terminal.descriptor, events: wanted, revents: 0),
                pollfd(fd: events.descriptor, events: Int16(POLLIN), revents: 0),
            ]
            guard poll(&descriptors, 2, next.millisecondsLeft) >= 0 || errno == EINTR else {
                throw SetupError("cannot wait: \(String(cString: strerror(errno)))")
            }
            if descriptors[0].revents != 0, !terminal.handle() { return }
            if descriptors[1].revents != 0 {
                guard let news = events.read() else {
                    lose()
                    continue
                }
                if !news.isEmpty { try refresh() }
            }
            if ContinuousClock.now >= next { try events.isConnected ? refresh() : reconnect() }
        }
    }

    private func leave() {
        hasLeft = true
        terminal.say("\n")
        terminal.leave()
    }

    // MARK: - The daemon

    private struct Page: Decodable {
        let items: [QuestionDocument]
        let answers: [String]
    }

    private func target(_ suffix: String, of sandbox: String?) throws -> String {
        "/v1/" + (try sandbox.map { "sandboxes/\(try SandboxPath.component($0))/" } ?? "") + suffix
    }

    private func refresh() throws {
        next = ContinuousClock.now + Self.interval
        do {
            let answer = try client.ask("GET", try target("questions", of: settings.sandbox))
            let page = try JSONDecoder().decode(Page.self, from: answer)
            terminal.update(page.items, keepsAnswers: page.answers.contains("always"))
        } catch let refusal as APIRefusal where !refusal.isForNow {
            throw refusal
        } catch {
            lose()
        }
    }

    /// The daemon has ended. What it asked nobody asks any more.
    private func lose() {
        next = ContinuousClock.now + Self.retryInterval
        events.close()
        terminal.update([], keepsAnswers: false)
        terminal.say("sandgate: the daemon at \(client.socket) has ended; waiting for the next one\n")
    }

    private func reconnect() throws {
        next = ContinuousClock.now + Self.retryInterval
        guard events.reconnect() else { return }
        terminal.say("sandgate: there is a daemon again\n")
        try refresh()
    }

    private func answer(_ question: QuestionDocument, _ typed: TypedAnswer) -> QuestionDialog.Outcome {
        let body = AnswerBody(
            answer: typed.word,
            ttl: typed.ttl,
            ports: typed.ports,
            by: settings.author,
            askedAt: question.askedAt
        )
        do {
            let path = try target("questions/\(question.question)", of: question.sandbox)
            _ = try client.ask("POST", path, body: Array(try JSONEncoder().encode(body)))
            return .done
        } catch let refusal as APIRefusal where refusal.code == "unknown-question" {
            return .late
        } catch {
            return .failed(QuestionDialog.lines(error))
        }
    }
}

extension ContinuousClock.Instant {
    /// How long poll(2) may wait until then.
    var millisecondsLeft: CInt {
        let left = max(self - .now, .zero).components
        return CInt(clamping: left.seconds * 1_000 + left.attoseconds / 1_000_000_000_000_000 + 1)
    }
}
