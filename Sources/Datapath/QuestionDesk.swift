public import EgressCore
public import EgressPolicy
public import NetPrimitives
import Reactor

/// Has somebody asked about what no rule of a sandbox's policy speaks of: runs ``Questions`` with the loop's clock, and keeps
/// whoever waits. Confined to the sandbox's loop.
///
///     query, ClientHello, Host, CONNECT ─▶ held here ─▶ policy changed ─▶ all of them are judged again
///                                            │   ├────▶ no, deadline ──▶ denied
///                                            ▼   └────▶ paused ────────▶ judged again, that is refused
///                              record, onAsked: somebody is told
///
/// A yes is nothing but a change of the policy in force: what is released, is released because the policy allows it.
public final class QuestionDesk {
    /// What waiting has come to.
    enum Ending {
        /// The policy in force is another one.
        case judgeAgain
        /// It is denied.
        case denied(Reason)
    }

    /// An answer, and whose it was.
    public struct Answer: Hashable, Sendable {
        /// What is allowed.
        public enum Choice: Hashable, Sendable {
            /// Nothing.
            case deny
            /// What waits, and whatever begins in the next moments, on these ports; none for those that were asked for.
            case once(ports: [PortRange])
            /// It becomes a rule of the policy in force, which nobody keeps anywhere else, until then if there is a time.
            case allow(ports: [PortRange], until: WallTime?)
            /// It becomes a rule behind the policy, which ``QuestionDesk/keep`` keeps.
            case always(ports: [PortRange])
        }

        /// What is allowed.
        public let choice: Choice
        /// Whose answer it was, for the record.
        public let author: String
        /// When the question was asked that is meant, if that was said: to another one with its number it is no answer.
        public let askedAt: WallTime?

        /// An answer from its parts.
        public init(_ choice: Choice, by author: String, askedAt: WallTime? = nil) {
            self.choice = choice
            self.author = author
            self.askedAt = askedAt
        }

        /// What it was, for the record: `allow for this sandbox, by alice`.
        fileprivate var text: String {
            switch choice {
            case .deny: "deny, by \(author)"
            case .once: "allow once, by \(author)"
            case .allow(_, nil): "allow for this sandbox, by \(author)"
            case .allow(_, let time?): "allow until \(Timestamp.text(of: time)), by \(author)"
            case .always: "allow for always, by \(author)"
            }
        }
    }

    /// Keeps a rule for good, if somebody does, and has all that are kept be enforced.
    public var keep: ((_ rule: Rule, _ enforce: (_ kept: [Rule]) throws -> Void) throws -> Void)?
    /// Called for each new question, when it waits already.
    public var onAsked: (Questions.Question) -> Void = { _ in }
    /// Called with the number of each question that has come to an end.
    public var onEnded: (UInt64) -> Void = { _ in }

    private unowned let attachment: Attachment
    private var questions: Questions
    private var waiters: [UInt64: [(Ending) -> Void]] = [:]
    /// What has just been answered, and is carried out by a change of the policy: for the record.
    private var answers: [UInt64: String] = [:]
    private var timer: TimerToken?

    init(_ attachment: Attachment) {
        self.attachment = attachment
        questions = Questions(limits: attachment.limits.questions)
    }
}

// MARK: - Asking

extension QuestionDesk {
    /// Has somebody asked. `next` is called once, now or later; never after ``stop()``.
    func ask(_ subject: Questions.Subject, then next: @escaping (Ending) -> Void) {
        let loop = attachment.loop
        switch questions.ask(subject, at: loop.now, loop.wallTime()) {
        case .denied(let reason): next(.denied(reason))
        case .waits(let question, let isNew):
            waiters[question.number, default: []].append(next)
            guard isNew else { return }
            record(.questionAsked, question)
            arm()
            onAsked(question)
        }
    }

    /// Those that wait for an answer, oldest first.
    public var open: [Questions.Question] { questions.all }

    /// The policy in force has changed: whoever waits is judged again, and comes back to what is open still.
    func reconsider() {
        let (policy, wallTime) = (attachment.policy, attachment.loop.wallTime())
        for question in questions.all {
            let answer = answers.removeValue(forKey: question.number)
            // An answer may leave a port open that was asked for; who wants it asks again.
            guard answer != nil || !question.subject.isOpen(in: policy, at: wallTime) else { continue }
            close(question, answer == nil ? .questionEnded : .questionAnswered, answer ?? "the policy speaks of it now")
        }
        sendAll()
    }

    /// Nothing is judged any more but to be refused.
    func clear(because reason: String) {
        for question in questions.all { close(question, .questionEnded, reason) }
        sendAll()
    }

    /// Ends all questions. Whoever waits is told nothing: its socket is closed, or another process has it.
    func stop() {
        waiters = [:]
        clear(because: "the sandbox is not served any more")
        if let timer { attachment.loop.cancel(timer) }
        timer = nil
    }

    private func sendAll() {
        questions.sendAll()
        let sent = waiters.sorted { $0.key < $1.key }.flatMap(\.value)
        waiters = [:]
        sent.forEach { $0(.judgeAgain) }
        arm()
    }

    /// The waiters stay, to be judged again.
    private func close(_ question: Questions.Question, _ kind: AuditEvent.Kind, _ detail: String) {
        questions.close(question.number)
        record(kind, question, detail)
        onEnded(question.number)
    }

    private func arm() {
        if let timer { attachment.loop.cancel(timer) }
        timer = questions.nextDeadline.map { deadline in
            attachment.loop.schedule(at: deadline) { [weak self] in self?.expire() }
        }
    }

    private func expire() {
        timer = nil
        for question in questions.expire(at: attachment.loop.now) {
            record(.questionEnded, question, "nobody answered in time")
            onEnded(question.number)
            end(question, .askDeadline)
        }
        arm()
    }

    private func end(_ question: Questions.Question, _ reason: Reason) {
        answers[question.number] = nil
        for next in waiters.removeValue(forKey: question.number) ?? [] { next(.denied(reason)) }
    }

    private func record(_ kind: AuditEvent.Kind, _ question: Questions.Question, _ detail: String? = nil) {
        var event = attachment.event(kind)
        event.host = "\(question.subject.name)"
        event.port = question.subject.ports.count == 1 ? question.subject.ports[0].lower : nil
        event.question = question.number
        event.detail = detail
        attachment.record(event)
    }
}

// MARK: - Answering

extension QuestionDesk {
    /// Carries out an answer. Returns the question; `nil` when it is not open any more.
    public func answer(_ number: UInt64, _ answer: Answer) throws -> Questions.Question? {
        guard let question = find(number, meantBy: answer) else { return nil }
        answers[number] = answer.text
        defer { answers[number] = nil }
        switch answer.choice {
        case .deny:
            questions.deny(number, at: attachment.loop.now)
            record(.questionAnswered, question, answer.text)
            onEnded(number)
            end(question, .askDenied)
            arm()
        case .once(let ports):
            let seconds = Int64(clamping: attachment.limits.questions.onceSeconds)
            let end = attachment.loop.wallTime().advanced(bySeconds: seconds)
            try attachment.allowOnce(question.subject.rule(onPorts: ports, expiresAt: end, comment: nil))
        case .allow(let ports, let until):
            let now = attachment.loop.wallTime()
            let comment = Policy.askedComment(author: answer.author, at: now)
            let rule = question.subject.rule(onPorts: ports, expiresAt: until, comment: comment)
            let policy = attachment.policy
            try replace(policy.policy.allowing(asked: rule, at: now), policy.always)
        case .always(let ports):
            guard let keep else { throw Unkept() }
            let comment = Policy.askedComment(author: answer.author, at: attachment.loop.wallTime())
            try keep(question.subject.rule(onPorts: ports, expiresAt: nil, comment: comment)) { kept in
                var always = attachment.policy.always
                always.answers = kept
                try replace(attachment.policy.policy, always)
            }
        }
        return question
    }

    private func replace(_ policy: Policy, _ always: AlwaysRules) throws {
        let current = attachment.policy
        try attachment.replacePolicy(
            with: CompiledPolicy(policy, always: always, guards: current.guards, generation: current.generation + 1)
        )
    }

    /// There is nobody who keeps rules for good.
    public struct Unkept: Error, CustomStringConvertible {
        /// One clause.
        public let description = "there is no file that answers for always are kept in"
    }

    private func find(_ number: UInt64, meantBy answer: Answer) -> Questions.Question? {
        questions[number].flatMap { answer.askedAt == nil || answer.askedAt == $0.askedAt ? $0 : nil }
    }

    /// Says that an answer is about to be carried out elsewhere, by a change of the policy. Returns the question; `nil` when it
    /// is not open any more.
    public func expectChange(for number: UInt64, by answer: Answer) -> Questions.Question? {
        guard let question = find(number, meantBy: answer) else { return nil }
        answers[number] = answer.text
        return question
    }

    /// The change that was expected has been made, or has failed.
    public func endExpecting(_ number: UInt64) {
        answers[number] = nil
    }
}

extension Attachment {
    /// What somebody is to be asked about instead of denying with `verdict`; `nil` when nobody is. With an `address`, only
    /// what was resolved to it: nothing else would be let through there.
    func subject(
        of verdict: Verdict,
        about name: DomainName?,
        port: UInt16?,
        at address: IPAddress? = nil
    ) -> Questions.Subject? {
        guard desk != nil, !isPaused, verdict.leavesOpen, let name,
            let port = port.flatMap({ PortRange($0) })
        else { return nil }
        if let address, pinner.table.freshness(of: address, for: name, at: loop.now) == nil { return nil }
        return Questions.Subject(name, port: port)
    }
}
