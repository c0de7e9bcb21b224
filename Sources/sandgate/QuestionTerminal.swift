import CLinux
import Glibc
import NetPrimitives
import PolicyDocument
import Reactor
import Sandboxes

/// A terminal in which a person is asked, by ``QuestionDialog``. It never waits, and is told when there is something to read or
/// room to write.
final class QuestionTerminal {
    /// The longest line that is read, in bytes; the kernel's lines are no longer (N_TTY_BUF_SIZE).
    private static let longestLine = 4_096
    /// While more than this many bytes wait for room, nothing more is said.
    private static let mostUnwritten = 4_096

    /// Open for reading and writing, and non-blocking. It is closed with this object.
    let descriptor: CInt
    /// Carries an answer out.
    var onAnswer: (QuestionDocument, TypedAnswer) -> QuestionDialog.Outcome = { _, _ in .late }
    /// Ctrl-D was pressed at the begin of a line.
    var onEnd: () -> Void = {}

    private var dialog: QuestionDialog
    private var isClosed = false
    private var unread: [UInt8] = []
    /// What the terminal has had no room for.
    private var unwritten: [UInt8] = []

    init(_ descriptor: CInt, _ dialog: QuestionDialog) {
        self.descriptor = descriptor
        self.dialog = dialog
    }

    deinit { close(descriptor) }

    /// Whether it has to be told when there is room.
    var wantsToWrite: Bool { !unwritten.isEmpty }

    /// These are open now.
    func update(_ questions: [QuestionDocument], keepsAnswers: Bool) {
        perform(dialog.update(questions, keepsAnswers: keepsAnswers, at: .current))
    }

    /// Says something that is no question.
    func say(_ text: String) { perform([.show(text)]) }

    /// Takes a line as if it had been typed.
    func take(_ line: String) {
        perform(dialog.take(line, at: .current, .current))
    }

    /// Nothing more is said, asked or read.
    func leave() { isClosed = true }

    /// There is something to read, or room to write. `false` when the terminal has gone.
    func handle() -> Bool { write() && read() }

    private func perform(_ actions: [QuestionDialog.Action]) {
        guard !isClosed else { return }
        for action in actions {
            switch action {
            case .show(let text):
                // A question comes when nothing waits: none is lost here.
                if unwritten.count < Self.mostUnwritten { unwritten += Array(text.utf8) }
            case .discardTyped:
                tcflush(descriptor, TCIFLUSH)
                unread = []
            case .answer(let question, let answer):
                // Other questions may end by it, and begin.
                let outcome = onAnswer(question, answer)
                perform(dialog.concluded(outcome, at: .current))
            }
        }
        // A terminal that has gone is noticed when it is read.
        if !actions.isEmpty { _ = write() }
    }

    /// `false` when the terminal has gone.
    private func write() -> Bool {
        guard !unwritten.isEmpty else { return true }
        while !unwritten.isEmpty {
            let count = Glibc.write(descriptor, unwritten, unwritten.count)
            if count < 0 {
                if errno == EINTR { continue }
                return errno == EAGAIN
            }
            unwritten.removeFirst(count)
        }
        perform(dialog.written(at: .current, .current))
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
                onEnd()
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
}
