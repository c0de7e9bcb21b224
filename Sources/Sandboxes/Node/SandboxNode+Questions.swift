public import EgressCore
public import EgressPolicy
public import PolicyDocument

extension SandboxNode {
    /// A question, and the sandbox it was asked for.
    public struct OpenQuestion: Sendable {
        /// The sandbox.
        public let sandbox: String
        /// What is asked.
        public let question: Questions.Question
    }

    /// Whether there can be answers for always.
    public var keepsAnswers: Bool { answers != nil }

    /// What waits for an answer in a sandbox, oldest first.
    public func questions(of id: String) async throws -> [OpenQuestion] {
        try await find(id).questions().map { OpenQuestion(sandbox: id, question: $0) }
    }

    /// What waits for an answer in all sandboxes, those first whose time is over first.
    public func questions() async throws -> [OpenQuestion] {
        var all: [OpenQuestion] = []
        for loop in loops.all {
            all +=
                (try? await loop.run { residents in
                    residents.questions.map { OpenQuestion(sandbox: $0, question: $1) }
                }) ?? []
        }
        return all.sorted { $0.question.deadline < $1.question.deadline }
    }

    /// Carries out the answer to a question. Returns the question, the rule that the answer made if it did, and what is
    /// known of the sandbox then.
    public func answer(
        _ number: UInt64,
        of id: String,
        _ answer: QuestionAnswer,
        by author: String
    ) async throws -> (question: Questions.Question, rule: Rule?, record: SandboxRecord) {
        let sandbox = try find(id)
        guard answer.choice == .always else {
            return try await sandbox.answer(number, answer, by: author)
        }
        guard let answers else {
            throw NodeError.unprocessable(field: "answer", "the daemon keeps no answers for always: none is configured")
        }
        return try await sandbox.answerForAlways(number, answer, by: author) { [self] rule in
            do {
                try await keep(rule, in: answers)
            } catch let error as NodeError {
                throw error
            } catch {
                throw NodeError.failed("\(error)")
            }
        }
    }
}
