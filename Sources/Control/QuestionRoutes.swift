import EgressCore
import EgressPolicy
import Hummingbird
import NetPrimitives
import PolicyDocument
import Reactor
import Sandboxes

/// `/v1/questions` and `/v1/sandboxes/{id}/questions`: what somebody is asked about, and the answers.
struct QuestionRoutes {
    let node: SandboxNode

    /// Adds what is asked in one sandbox.
    func addSandbox(to group: RouterGroup<ControlContext>) {
        group.get("{id}/questions") { _, context in
            await page(try await node.questions(of: try context.sandboxID()))
        }
        group.post("{id}/questions/{number}") { request, context in
            try await answer(try context.sandboxID(), request, context)
        }
    }

    /// Adds what is asked in all of them.
    func add(to group: RouterGroup<ControlContext>) {
        group.get("questions") { _, _ in await page(try await node.questions()) }
    }

    private func page(_ questions: [SandboxNode.OpenQuestion]) async -> Response {
        Answer.json(
            QuestionsBody(
                items: questions.map { QuestionDocument($0.question, sandbox: $0.sandbox) },
                answers: ["deny", "once", "allow"] + (await node.keepsAnswers ? ["always"] : [])
            )
        )
    }

    private func answer(_ id: String, _ request: Request, _ context: ControlContext) async throws -> Response {
        guard let number = context.parameters.get("number").flatMap({ UInt64($0) }) else {
            throw APIError.parameter("number", "expected the number of a question")
        }
        let body = try QuestionAnswer.load(bytes: try await request.bytes(), file: "body", now: .current)
        guard (body.question ?? number) == number else {
            throw APIError.parameter("question", "expected \(number), as in the path")
        }
        let origin = await RequestCaller(context).name
        let author = body.author.map { "\($0) (\(origin))" } ?? origin
        let (question, rule, record) = try await node.answer(number, of: id, body, by: author)
        return Answer.json(
            AnsweredBody(
                question: QuestionDocument(question, sandbox: id),
                rule: rule,
                revision: record.revision
            ),
            headers: [.eTag: PolicyRoutes.tag(record.revision)]
        )
    }
}

/// What is asked, and what may be answered.
private struct QuestionsBody: Encodable {
    let items: [QuestionDocument]
    let answers: [String]
}

/// What an answer has come to.
private struct AnsweredBody: Encodable {
    let question: QuestionDocument
    /// The rule that it has made, the last one of the sandbox's policy.
    let rule: Rule?
    let revision: UInt64
}
