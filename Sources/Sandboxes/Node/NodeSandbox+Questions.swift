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
        by author: String,
        under rules: NodeRules
    ) async throws -> (question: Questions.Question, rule: Rule?, record: SandboxRecord) {
        let id = record.id
        guard case .allow(let expiry) = answer.choice else {
            let question = try await loop.run { residents in
                try residents[id]?.attachment.desk?.answer(number, QuestionDesk.Answer(answer, by: author))
            }
            guard let question else { throw NodeError.unknownQuestion(number, sandbox: id) }
            return (question, nil, record)
        }
        let question = try await loop.run { residents in
            residents[id]?.attachment.desk?.expectChange(for: number, until: expiry, by: author)
        }
        guard let question else { throw NodeError.unknownQuestion(number, sandbox: id) }
        let now = WallTime.current
        let comment = Policy.askedComment(author: author, at: now)
        let rule = question.subject.rule(onPorts: answer.ports, expiresAt: expiry, comment: comment)
        let change: Result<SandboxRecord, any Error>
        do {
            change = .success(
                try await setPolicy(expecting: nil, under: rules) { policy in
                    (policy ?? rules.defaultPolicy).allowing(asked: rule, at: now)
                }
            )
        } catch {
            change = .failure(error)
        }
        try? await loop.run { residents in residents[id]?.attachment.desk?.endExpecting(number) }
        return (question, rule, try change.get())
    }
}
