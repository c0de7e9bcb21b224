public import NetPrimitives

/// What somebody answers to the question whether a name may be reached.
///
///     {"answer": "deny"}    {"answer": "once"}    {"answer": "allow", "ttl": "10m", "ports": [8443], "by": "alice"}
///     {"answer": "always"}    {"answer": "once", "askedAt": "2026-11-27T09:12:44.123456Z"}
public struct QuestionAnswer: Hashable, Sendable {
    /// What is allowed.
    public enum Choice: Hashable, Sendable {
        /// Nothing.
        case deny
        /// What waits, and whatever begins in the next moments.
        case once
        /// It becomes a rule of the sandbox's policy, until then if there is a time.
        case allow(until: WallTime?)
        /// It becomes a rule in a file of the operator's, behind every policy of whoever asks.
        case always
    }

    /// What is allowed.
    public var choice: Choice
    /// The TCP ports; none for those that were asked for.
    public var ports: [PortRange]
    /// Who says so, by their own account.
    public var author: String?
    /// The number of the question, where nothing else says it.
    public var question: UInt64?
    /// When the question was asked that is meant. Numbers begin anew with each daemon: who says so answers no other one.
    public var askedAt: WallTime?

    /// An answer from its parts.
    public init(_ choice: Choice, ports: [PortRange] = [], author: String? = nil) {
        self.choice = choice
        self.ports = ports
        self.author = author
    }

    /// The longest name of an author, in bytes.
    static let longestAuthor = 128

    /// Reads an answer; the error holds all problems. `file` is for messages, a `ttl` counts from `now`.
    public static func load(bytes: [UInt8], file: String, now: WallTime) throws(DocumentError) -> QuestionAnswer {
        let root = try PolicyDocument.tree(bytes, .json, file)
        var reader = PolicyReader(file: file, now: now)
        let answer = reader.readAnswer(root ?? DocumentNode(value: .null, position: .init()))
        try PolicyDocument.refuse(reader.problems)
        return answer
    }

    /// The answer of these parts, as they would be written in a document.
    static func read(word: String, ttl: String?, ports: [String], now: WallTime) throws(DocumentError) -> QuestionAnswer
    {
        func member(_ key: String, _ value: DocumentNode.Value) -> DocumentNode.Member {
            DocumentNode.Member(key: key, position: .init(), value: DocumentNode(value: value, position: .init()))
        }
        var members = [member("answer", .string(word))]
        if let ttl { members.append(member("ttl", .string(ttl))) }
        let list = ports.map { DocumentNode(value: .string($0), position: .init()) }
        if !list.isEmpty { members.append(member("ports", .sequence(list))) }
        var reader = PolicyReader(file: "answer", now: now)
        let answer = reader.readAnswer(DocumentNode(value: .mapping(members), position: .init()))
        try PolicyDocument.refuse(reader.problems)
        return answer
    }
}

extension PolicyReader {
    fileprivate mutating func readAnswer(_ root: DocumentNode) -> QuestionAnswer {
        var answer = QuestionAnswer(.deny)
        var word: String?
        var time: (WallTime?, DocumentNode.Position)?
        for member in members(of: root, "", allowed: ["question", "askedAt", "answer", "ttl", "ports", "by"]) ?? [] {
            let (value, key) = (member.value, member.key)
            switch key {
            case "question": answer.question = readNumber(value)
            case "askedAt": answer.askedAt = readTime(value, key)
            case "answer": word = text(value, key)
            case "ttl": time = (readDuration(value, key), member.position)
            case "ports": answer.ports = readPorts(value, key)
            default: answer.author = readAuthor(value)
            }
        }
        switch word {
        case "deny": break
        case "once": answer.choice = .once
        case "allow": answer.choice = .allow(until: time?.0)
        case "always": answer.choice = .always
        default: report(root.position, "answer", "expected deny, once, allow or always")
        }
        if let (_, position) = time, word == "deny" || word == "once" || word == "always" {
            report(position, "ttl", "stands beside \(word ?? ""): only allow is for a time")
        }
        return answer
    }

    private mutating func readNumber(_ node: DocumentNode) -> UInt64? {
        if case .number(let text) = node.value, let number = UInt64(text) { return number }
        report(node.position, "question", "expected the number of a question, found \(node.kind)")
        return nil
    }

    private mutating func readAuthor(_ node: DocumentNode) -> String? {
        guard let author = text(node, "by") else { return nil }
        guard (1...QuestionAnswer.longestAuthor).contains(author.utf8.count), !author.contains(where: \.isNewline)
        else {
            report(node.position, "by", "expected 1 to \(QuestionAnswer.longestAuthor) bytes in a line")
            return nil
        }
        return author
    }
}
