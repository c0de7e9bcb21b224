import NetPrimitives
import PolicyDocument
import Sandboxes
import Testing

@Suite struct QuestionDialogTests {
    private static let wall = WallTime(microseconds: 1_800_000_000_000_000)
    private static let prompt = QuestionDialog.Action.show("once, allow, allow 10m or deny? ")

    private static func question(
        _ number: UInt64,
        _ host: String,
        ports: [UInt16] = [80, 443],
        of sandbox: String = "box",
        askedAt: String = "2027-01-15T08:00:00.000000Z"
    ) -> QuestionDocument {
        QuestionDocument(
            sandbox: sandbox,
            question: number,
            host: host,
            ports: ports,
            askedAt: askedAt,
            expiresAt: Timestamp.text(of: wall.advanced(bySeconds: 30)),
            waiters: 1
        )
    }

    /// A dialogue whose terminal takes everything at once, and a clock.
    private struct Screen {
        var dialog: QuestionDialog
        var time = MonotonicTime(nanoseconds: 1_000_000_000)
        var keepsAnswers = false
        /// Whether the terminal takes what it is given.
        var isOpen = true

        mutating func open(_ questions: QuestionDocument...) -> [QuestionDialog.Action] {
            after(dialog.update(questions, keepsAnswers: keepsAnswers, at: wall))
        }

        mutating func type(_ line: String) -> [QuestionDialog.Action] { after(dialog.take(line, at: time, wall)) }

        mutating func conclude(_ outcome: QuestionDialog.Outcome) -> [QuestionDialog.Action] {
            after(dialog.concluded(outcome, at: wall))
        }

        mutating func write() -> [QuestionDialog.Action] {
            isOpen = true
            return after(dialog.written(at: time, wall))
        }

        mutating func wait(milliseconds: UInt64) { time = time.advanced(byNanoseconds: milliseconds * 1_000_000) }

        private mutating func after(_ actions: [QuestionDialog.Action]) -> [QuestionDialog.Action] {
            let hasText = actions.contains { if case .show = $0 { true } else { false } }
            guard isOpen, hasText else { return actions }
            return actions + after(dialog.written(at: time, wall))
        }
    }

    private static func screen(ofMany: Bool = false) -> Screen {
        Screen(dialog: QuestionDialog(ofMany: ofMany, span: "until the run ends"))
    }

    @Test func `a question is shown, answered, and followed by the next`() throws {
        var screen = Self.screen()
        let (one, two) = (Self.question(1, "a.example"), Self.question(2, "b.example", ports: [8443]))
        #expect(
            screen.open(one, two) == [
                .discardTyped, .show("\n#1 a.example, ports 80 and 443, denied in 30 s; 1 more waits\n"), Self.prompt,
            ]
        )
        screen.wait(milliseconds: 700)
        let answer = try TypedAnswer("once", now: Self.wall)
        #expect(screen.type("once") == [.answer(one, answer)])
        // The answer ends it, and is what is told of it.
        #expect(screen.open(two) == [])
        #expect(
            screen.conclude(.done) == [
                .show("a.example is allowed once\n"), .discardTyped,
                .show("\n#2 b.example, port 8443, denied in 30 s\n"),
                Self.prompt,
            ]
        )
    }

    @Test(
        arguments: [
            ("deny", "denied"), ("Once 22", "allowed once"), ("allow", "allowed until the run ends"),
            ("allow 443, 10m", "allowed until 2027-01-15T08:10:00.000000Z"), ("always", "allowed for always"),
        ]
    )
    func `it is said what an answer comes to`(line: String, phrase: String) {
        var screen = Self.screen()
        _ = screen.open(Self.question(1, "a.example"))
        screen.wait(milliseconds: 700)
        _ = screen.type(line)
        #expect(screen.conclude(.done) == [.show("a.example is \(phrase)\n")])
    }

    @Test func `what is typed within a moment answers nothing`() {
        var screen = Self.screen()
        _ = screen.open(Self.question(1, "a.example"))
        screen.wait(milliseconds: 699)
        let early = [QuestionDialog.Action.show("that was too soon to be an answer to #1\n"), Self.prompt]
        #expect(screen.type("allow") == early)
        screen.wait(milliseconds: 1)
        #expect(screen.type("allow").count == 1)
        // Nothing is asked: a line is nothing.
        _ = screen.conclude(.done)
        #expect(screen.type("allow") == [])
    }

    @Test func `what the terminal has not taken nobody can have read`() {
        var screen = Self.screen()
        screen.isOpen = false
        let one = Self.question(1, "a.example")
        #expect(screen.open(one).count == 3)
        screen.wait(milliseconds: 5_000)
        #expect(screen.type("allow").first == .show("that was too soon to be an answer to #1\n"))
        // The moment begins when it is there.
        #expect(screen.write() == [])
        #expect(screen.type("allow").first == .show("that was too soon to be an answer to #1\n"))
        screen.wait(milliseconds: 700)
        #expect(screen.type("allow").count == 1)
    }

    @Test func `the next waits until the end of the last one has been shown`() {
        var screen = Self.screen()
        _ = screen.open(Self.question(1, "a.example"))
        screen.isOpen = false
        #expect(screen.open(Self.question(2, "b.example")) == [.show("\na.example is not asked about any more\n")])
        #expect(screen.type("allow") == [])
        #expect(screen.write().first == .discardTyped)
    }

    @Test func `a question that others have answered is over, and one that came before it does not push it away`() {
        var screen = Self.screen(ofMany: true)
        let one = Self.question(1, "a.example", of: "far")
        #expect(screen.open(one)[1] == .show("\n#1 of far: a.example, ports 80 and 443, denied in 30 s\n"))
        let urgent = Self.question(7, "b.example")
        #expect(screen.open(urgent, one) == [])
        #expect(
            Array(screen.open(urgent).prefix(3)) == [
                .show("\na.example is not asked about any more\n"), .discardTyped,
                .show("\n#7 of box: b.example, ports 80 and 443, denied in 30 s\n"),
            ]
        )
    }

    @Test func `the same number of the next daemon is another question`() {
        var screen = Self.screen()
        _ = screen.open(Self.question(1, "a.example"))
        screen.wait(milliseconds: 700)
        let other = Self.question(1, "b.example", askedAt: "2027-01-15T08:00:01.000000Z")
        #expect(screen.open(other).first == .show("\na.example is not asked about any more\n"))
        #expect(screen.type("allow").first == .show("that was too soon to be an answer to #1\n"))
    }

    @Test func `an answer that fails can be given again, and one that is late is none`() {
        var screen = Self.screen()
        screen.keepsAnswers = true
        let (one, two) = (Self.question(1, "a.example"), Self.question(2, "b.example"))
        _ = screen.open(one, two)
        screen.wait(milliseconds: 700)
        _ = screen.type("always")
        let prompt = QuestionDialog.Action.show("once, allow, allow 10m, always or deny? ")
        #expect(screen.conclude(.failed("no space\n")) == [.show("no space\n"), prompt])
        #expect(screen.type("always").count == 1)
        #expect(screen.conclude(.late).first == .show("\na.example is not asked about any more\n"))
        screen.wait(milliseconds: 700)
        _ = screen.type("once")
        _ = screen.open()
        #expect(screen.conclude(.failed("gone\n")) == [.show("gone\n")])
    }

    @Test(
        arguments: [
            ("", "expected once, deny, allow or always"), ("yes", "expected once, deny, allow or always"),
            ("once 10m", "ttl: stands beside once: only allow is for a time"),
            ("allow soon", "ttl: expected a duration"), ("allow 0", "ttl: expected a duration"),
        ]
    )
    func `what is no answer is told, and the question stays`(line: String, problem: String) {
        var screen = Self.screen()
        _ = screen.open(Self.question(1, "a.example"))
        screen.wait(milliseconds: 700)
        let actions = screen.type(line)
        guard case .show(let text)? = actions.first else { return #expect(Bool(false), "\(actions)") }
        #expect(text.hasPrefix(problem) && actions.last == Self.prompt)
        #expect(screen.type("once").count == 1)
    }

    @Test func `what a sandbox chose writes nothing but itself`() {
        var screen = Self.screen(ofMany: true)
        let hostile = Self.question(1, "\u{1B}[2J\u{202e}a.example\n#2 b.example", of: "box\u{7}")
        guard case .show(let text) = screen.open(hostile)[1] else { return #expect(Bool(false)) }
        #expect(text.dropFirst().dropLast().unicodeScalars.allSatisfy { (0x20...0x7E).contains($0.value) })
        #expect(text.contains(#"of box\u{7}: \u{1b}[2J\u{202e}a.example\u{a}#2 b.example, ports"#))
    }
}
