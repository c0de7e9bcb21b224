import ArgumentParser
import Audit
import FoundationEssentials
import NetPrimitives
import Reactor
import Sandboxes

/// `sandgate questions`: what somebody is asked about by a running daemon.
struct QuestionsCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "questions",
        abstract: "List what waits for an answer in the sandboxes of a running daemon, or ask it in this terminal.",
        discussion: """
            Sandboxes that were attached with --ask hold connections to names that no rule speaks of. The most urgent \
            question comes first. sandgate answer answers one; what nobody answers in time is denied.

            With --follow questions are asked here, one at a time, as they come. An answer is once, allow, allow 10m, \
            always or deny, with ports behind it if others are meant than those that are asked for (once 22). Ctrl-C \
            and Ctrl-D leave, and answer nothing.

            EXAMPLES:
              sandgate questions
              sandgate questions --sandbox box --json
              sandgate questions --follow --by alice
            """
    )

    @OptionGroup var options: DaemonOptions

    @Option(help: ArgumentHelp("Only those of this sandbox.", valueName: "id"))
    var sandbox: String?

    @Flag(help: "Ask each question in this terminal, as it comes.")
    var follow = false

    @Option(help: ArgumentHelp("Who answers, for the record; the user's number is recorded beside.", valueName: "name"))
    var by: String?

    private struct Page: Decodable {
        let items: [QuestionDocument]
    }

    func validate() throws {
        if follow, options.json { throw ValidationError("--follow and --json: only one of them is accepted") }
        if by != nil, !follow { throw ValidationError("--by stands without --follow, which asks") }
        if let sandbox { _ = try SandboxPath.component(sandbox) }
    }

    func run() throws {
        guard !follow else {
            return try QuestionWatch(.init(client: options.client, sandbox: sandbox, author: by)).run()
        }
        let path = try sandbox.map { "/v1/sandboxes/\(try SandboxPath.component($0))/questions" } ?? "/v1/questions"
        let answer = try options.client.ask("GET", path)
        guard !options.json else { return Console.output(String(decoding: answer, as: UTF8.self)) }
        let now = WallTime.current
        let rows = try JSONDecoder().decode(Page.self, from: answer).items.map { question in
            [
                question.sandbox, "\(question.question)", Printable.name(question.host),
                question.ports.map { "\($0)" }.joined(separator: ","), "\(question.secondsLeft(at: now))s",
                "\(question.waiters)",
            ]
        }
        guard !rows.isEmpty else { return Console.error("nothing waits for an answer") }
        for line in TextTable.aligned([["SANDBOX", "NUMBER", "HOST", "PORTS", "LEFT", "WAITING"]] + rows) {
            Console.output(line)
        }
    }
}

/// `sandgate answer ID NUMBER once|deny|allow|always`: what somebody answers.
struct AnswerCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "answer",
        abstract: "Answer a question of a running daemon; whoever waits goes on.",
        discussion: """
            deny denies what waits. once lets it through, and what begins in the next moments. allow adds a rule to the \
            sandbox's policy, which --ttl lets expire. always writes a rule into the daemon's file of answers, which holds \
            for whoever asks. sandgate questions lists what is asked.

            EXAMPLES:
              sandgate answer box 3 once
              sandgate answer box 3 allow --ttl 10m
              sandgate answer box 4 allow --port 443 --by alice
              sandgate answer box 5 deny
            """
    )

    /// What may be answered.
    enum Word: String, ExpressibleByArgument, CaseIterable {
        case once, deny, allow, always
    }

    @OptionGroup var options: DaemonOptions

    @Argument(help: "The sandbox.")
    var id: String

    @Argument(help: "The number of the question, among the sandbox's.")
    var number: UInt64

    @Argument(help: "once, deny, allow or always.")
    var word: Word

    @Option(help: ArgumentHelp("How long it is allowed: 30s, 10m, 1h or 2d.", valueName: "duration"))
    var ttl: String?

    @Option(
        parsing: .singleValue,
        help: ArgumentHelp("A port or range that is allowed, in place of those that were asked for.", valueName: "port")
    )
    var port: [String] = []

    @Option(help: ArgumentHelp("Who answers, for the record; the user's number is recorded beside.", valueName: "name"))
    var by: String?

    private struct Answered: Decodable {
        let question: QuestionDocument
        let revision: UInt64
    }

    func validate() throws {
        if ttl != nil, word != .allow { throw ValidationError("--ttl stands beside \(word): only allow is for a time") }
        if !port.isEmpty, word == .deny { throw ValidationError("--port stands beside deny, which allows none") }
        for port in port where PortRange(parsing: port) == nil {
            throw ValidationError("--port \(port): expected a port or a range such as 8000-8100")
        }
        _ = try SandboxPath.component(id)
    }

    func run() throws {
        let body = AnswerBody(answer: word.rawValue, ttl: ttl, ports: port, by: by, askedAt: nil)
        let answer = try options.client.ask(
            "POST",
            "/v1/sandboxes/\(try SandboxPath.component(id))/questions/\(number)",
            body: Array(try JSONEncoder().encode(body))
        )
        guard !options.json else { return Console.output(String(decoding: answer, as: UTF8.self)) }
        let answered = try JSONDecoder().decode(Answered.self, from: answer)
        let host = Printable.name(answered.question.host)
        switch word {
        case .deny: Console.output("\(host) is denied")
        case .once: Console.output("\(host) is allowed once")
        case .allow:
            let time = ttl.map { " for \($0)" } ?? ""
            Console.output("\(host) is allowed\(time): a rule is in force, revision \(answered.revision)")
        case .always: Console.output("\(host) is allowed for always: a rule is in the daemon's file of answers")
        }
    }
}

/// An answer, as the daemon is sent it.
struct AnswerBody: Encodable {
    let answer: String
    let ttl: String?
    let ports: [String]?
    let by: String?
    /// When the question was asked that is meant.
    let askedAt: String?

    /// An answer from its parts; without `ports`, those that were asked for are meant.
    init(answer: String, ttl: String?, ports: [String], by: String?, askedAt: String?) {
        self.answer = answer
        self.ttl = ttl
        self.ports = ports.isEmpty ? nil : ports
        self.by = by
        self.askedAt = askedAt
    }
}
