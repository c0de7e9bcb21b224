import Audit
public import NetPrimitives
public import PolicyDocument

/// What a person in a terminal is shown of open questions, one at a time, and what the lines that they type answer. It has no
/// terminal and no clock:
///
///     #3 of box: example.com, ports 80 and 443, denied in 30 s; 2 more wait
///     once, allow, allow 10m, always or deny? once
///     example.com is allowed once
///
///     open ─▶ shown, once all that was said before has been ─▶ can be read ─▶ a moment later a line is an answer ─▶ concluded
///               ▲                                               └─▶ not open any more: answered by others, or out of time
///               └────────────────────── the next ◀──────────────────┘
///
/// A sandbox chooses when it asks, so it must not be able to put a question under an answer that is on its way to another one:
/// what is typed before a question can have been read is thrown away or answers nothing, and what nobody has seen nobody
/// answers.
public struct QuestionDialog: Sendable {
    /// What is to be done, in this order.
    public enum Action: Hashable, Sendable {
        /// This is shown; ``written(at:_:)`` is called when the terminal has taken all that was to be shown.
        case show(String)
        /// What was typed and not taken yet is thrown away.
        case discardTyped
        /// The answer is carried out, and ``concluded(_:at:)`` called with what came of it.
        case answer(QuestionDocument, TypedAnswer)
    }

    /// What came of an answer.
    public enum Outcome: Hashable, Sendable {
        /// It was carried out.
        case done
        /// The question was not open any more.
        case late
        /// It was not carried out, because of these lines.
        case failed(String)
    }

    private enum State {
        /// It is on its way to the terminal.
        case unread
        /// It has been on the screen since then.
        case readable(since: MonotonicTime)
        /// It is being answered.
        case answered(TypedAnswer, since: MonotonicTime)
    }

    /// What is typed within this time after a question has appeared is not an answer to it.
    private static let momentNanoseconds: UInt64 = 700_000_000

    /// Whether questions of more than one sandbox are asked.
    private let isOfMany: Bool
    /// What a yes without a time comes to, behind "allowed": `until the run ends`.
    private let span: String
    /// Whether answers may be for always.
    private var keepsAnswers = false
    /// All that are open, in the order in which they are shown.
    private var open: [QuestionDocument] = []
    private var shown: (question: QuestionDocument, state: State)?
    /// Whether the terminal has taken all that was to be shown.
    private var isWritten = true

    /// Nothing is asked yet. `span` is what a yes without a time comes to, behind "allowed".
    public init(ofMany isOfMany: Bool, span: String) {
        self.isOfMany = isOfMany
        self.span = span
    }

    /// These are open now, in the order in which they are to be shown. The one that is shown stays in its place.
    public mutating func update(
        _ questions: [QuestionDocument],
        keepsAnswers: Bool,
        at now: WallTime
    ) -> [Action] {
        open = questions
        self.keepsAnswers = keepsAnswers
        guard let (question, state) = shown else { return showNext(at: now) }
        // What ends it while it is answered is the answer, or the answer finds it closed.
        if case .answered = state { return [] }
        guard !questions.contains(where: { $0.isSame(as: question) }) else { return [] }
        return end(question) + showNext(at: now)
    }

    /// The terminal has taken all that was to be shown.
    public mutating func written(at time: MonotonicTime, _ now: WallTime) -> [Action] {
        isWritten = true
        if case (let question, .unread)? = shown { shown = (question, .readable(since: time)) }
        return shown == nil ? showNext(at: now) : []
    }

    /// A line was typed.
    public mutating func take(_ line: some StringProtocol, at time: MonotonicTime, _ now: WallTime) -> [Action] {
        switch shown {
        case (let question, .unread)?: return early(question)
        case (let question, .readable(let since))?:
            guard time >= since.advanced(byNanoseconds: Self.momentNanoseconds) else { return early(question) }
            do {
                let answer = try TypedAnswer(line, now: now)
                shown = (question, .answered(answer, since: since))
                return [.answer(question, answer)]
            } catch {
                return show(Self.lines(error)) + prompt
            }
        case (_, .answered)?, nil: return []
        }
    }

    /// An answer was carried out, or was not.
    public mutating func concluded(_ outcome: Outcome, at now: WallTime) -> [Action] {
        guard case (let question, .answered(let answer, let since))? = shown else { return [] }
        switch outcome {
        case .done:
            open.removeAll { $0.isSame(as: question) }
            shown = nil
            return show("\(Self.name(question)) is \(phrase(answer))\n") + showNext(at: now)
        case .late:
            open.removeAll { $0.isSame(as: question) }
            return end(question) + showNext(at: now)
        case .failed(let lines):
            let isOpen = open.contains { $0.isSame(as: question) }
            shown = isOpen ? (question, .readable(since: since)) : nil
            return show(lines) + (isOpen ? prompt : showNext(at: now))
        }
    }
}

// MARK: - What is shown

extension QuestionDialog {
    private mutating func show(_ text: String) -> [Action] {
        isWritten = false
        return [.show(text)]
    }

    private mutating func end(_ question: QuestionDocument) -> [Action] {
        shown = nil
        return show("\n\(Self.name(question)) is not asked about any more\n")
    }

    private mutating func early(_ question: QuestionDocument) -> [Action] {
        show("that was too soon to be an answer to #\(question.question)\n") + prompt
    }

    /// Shows the first question if none is shown, and the terminal has taken all that was said before.
    private mutating func showNext(at now: WallTime) -> [Action] {
        guard shown == nil, isWritten, let question = open.first else { return [] }
        shown = (question, .unread)
        let place = isOfMany ? " of \(Printable.text(question.sandbox)):" : ""
        let ports = question.ports.map { "\($0)" }.joined(separator: " and ")
        let more = open.count == 1 ? "" : "; \(open.count - 1) more wait\(open.count == 2 ? "s" : "")"
        // What was typed so far was typed about something else.
        return [.discardTyped]
            + show(
                "\n#\(question.question)\(place) \(Self.name(question)), port\(question.ports.count == 1 ? "" : "s") "
                    + "\(ports), denied in \(question.secondsLeft(at: now)) s\(more)\n"
            ) + prompt
    }

    private var prompt: [Action] { [.show("once, allow, allow 10m\(keepsAnswers ? ", always" : "") or deny? ")] }

    /// The name that is asked about, whose characters the sandbox chose.
    private static func name(_ question: QuestionDocument) -> String { Printable.name(question.host) }

    /// What an answer comes to, behind "is".
    private func phrase(_ answer: TypedAnswer) -> String {
        switch answer.answer.choice {
        case .deny: "denied"
        case .once: "allowed once"
        case .allow(nil): "allowed \(span)"
        case .allow(let until?): "allowed until \(Timestamp.text(of: until))"
        case .always: "allowed for always"
        }
    }

    /// What is wrong, for a terminal.
    public static func lines(_ error: any Error) -> String {
        let messages =
            (error as? DocumentError)?.problems.map { $0.path.isEmpty ? $0.message : "\($0.path): \($0.message)" }
            ?? "\(error)".split(separator: "\n").map(String.init)
        return messages.map { Printable.text($0, limit: 300) + "\n" }.joined()
    }
}
