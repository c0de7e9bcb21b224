import Datapath
import EgressCore
import EgressPolicy
import NetPrimitives
import PolicyDocument
import Reactor

// Somebody is asked about what no rule speaks of.
extension NodeSandbox {
    /// Those that wait for an answer, oldest first.
    func questions() async throws -> [Questions.Question] {
        let id = record.id
        return try await loop.run { residents in residents[id]?.attachment.desk?.open ?? [] }
    }

    /// Carries out an answer. What it allows for longer than once is a rule, on the disk when this returns, and whoever waited
    /// is let through by it. Returns the question and what is known of the sandbox then.
    func answer(
        _ number: UInt64,
        _ answer: QuestionAnswer,
        by author: String
    ) async throws -> (question: Questions.Question, rule: Rule?, record: SandboxRecord) {
        let id = record.id
        guard case .allow = answer.choice else {
            let question = try await loop.run { residents in
                try residents[id]?.attachment.desk?.answer(number, QuestionDesk.Answer(answer, by: author))
            }
            guard let question else { throw NodeError.unknownQuestion(number, sandbox: id) }
            return (question, nil, record)
        }
        let now = WallTime.current
        let (question, rule) = try await carryOut(number, answer, by: author, at: now) { rule in
            _ = try await setPolicy(expecting: nil) { [rules = services.rules] policy in
                (policy ?? rules.value.defaultPolicy).allowing(asked: rule, at: now)
            }
        }
        return (question, rule, record)
    }

    /// Carries out an answer for always: `keep` puts the rule in force wherever questions are asked, and keeps it.
    func answerForAlways(
        _ number: UInt64,
        _ answer: QuestionAnswer,
        by author: String,
        keep: @Sendable (Rule) async throws -> Void
    ) async throws -> (question: Questions.Question, rule: Rule?, record: SandboxRecord) {
        let (question, rule) = try await carryOut(number, answer, by: author, at: .current, keep)
        return (question, rule, record)
    }

    /// Has `change` put the rule that an answer makes in force, by which whoever waited is let through.
    private func carryOut(
        _ number: UInt64,
        _ answer: QuestionAnswer,
        by author: String,
        at now: WallTime,
        _ change: (Rule) async throws -> Void
    ) async throws -> (question: Questions.Question, rule: Rule) {
        let id = record.id
        let question = try await loop.run { residents in
            residents[id]?.attachment.desk?.expectChange(for: number, by: QuestionDesk.Answer(answer, by: author))
        }
        guard let question else { throw NodeError.unknownQuestion(number, sandbox: id) }
        let comment = Policy.askedComment(author: author, at: now)
        let expiry: WallTime? = if case .allow(let until) = answer.choice { until } else { nil }
        let rule = question.subject.rule(onPorts: answer.ports, expiresAt: expiry, comment: comment)
        let outcome: Result<Void, any Error>
        do {
            outcome = .success(try await change(rule))
        } catch {
            outcome = .failure(error)
        }
        try? await loop.run { residents in residents[id]?.attachment.desk?.endExpecting(number) }
        try outcome.get()
        return (question, rule)
    }
}
