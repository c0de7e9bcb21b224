public import EgressCore
public import NetPrimitives

/// A question as everybody is told it who may answer: over the API, by `--ask-command` and in a terminal. Of its fields only
/// `host` and `command` hold what a sandbox chose.
///
///     {"askedAt":"…","command":"make test","expiresAt":"…","host":"example.com","ports":[80,443],"question":1,
///      "sandbox":"run-812","waiters":1}
public struct QuestionDocument: Codable, Hashable, Sendable {
    /// The sandbox that it is asked for.
    public let sandbox: String
    /// Its number among the sandbox's, from 1.
    public let question: UInt64
    /// The name that is to be reached.
    public let host: String
    /// The TCP ports that are asked for.
    public let ports: [UInt16]
    /// What runs in the sandbox, where that is one command.
    public let command: String?
    /// When it was asked (RFC 3339).
    public let askedAt: String
    /// When it is denied unless somebody answers (RFC 3339).
    public let expiresAt: String
    /// How many connections and queries wait for the answer.
    public let waiters: Int

    /// A document from its parts.
    public init(
        sandbox: String,
        question: UInt64,
        host: String,
        ports: [UInt16],
        command: String? = nil,
        askedAt: String,
        expiresAt: String,
        waiters: Int
    ) {
        self.sandbox = sandbox
        self.question = question
        self.host = host
        self.ports = ports
        self.command = command
        self.askedAt = askedAt
        self.expiresAt = expiresAt
        self.waiters = waiters
    }

    /// The document of a question.
    public init(_ question: Questions.Question, sandbox: String, command: String? = nil) {
        self.init(
            sandbox: sandbox,
            question: question.number,
            host: "\(question.subject.name)",
            ports: question.subject.ports.map(\.lower),
            command: command,
            askedAt: Timestamp.text(of: question.askedAt),
            expiresAt: Timestamp.text(of: question.expiresAt),
            waiters: question.waiters
        )
    }
}

extension QuestionDocument {
    /// Whether both are the same question, also where a daemon that has begun since numbers anew.
    public func isSame(as other: QuestionDocument) -> Bool {
        question == other.question && sandbox == other.sandbox && askedAt == other.askedAt
    }

    /// How long it waits from `now` on, in seconds; 0 when its time is over.
    public func secondsLeft(at now: WallTime) -> Int64 {
        guard let end = Timestamp.time(parsing: expiresAt.utf8) else { return 0 }
        return max(0, (end.microseconds - now.microseconds) / 1_000_000)
    }
}
