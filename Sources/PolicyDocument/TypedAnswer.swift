public import NetPrimitives

/// What a person types for an answer: `once`, `deny`, `allow` or `always`, with ports and a duration in any order behind it.
///
///     once    once 22    allow    allow 10m    Allow 443, 8000-8100, 10m    always    deny
public struct TypedAnswer: Hashable, Sendable {
    /// `once`, `deny`, `allow` or `always`.
    public let word: String
    /// How long it is allowed, as it was typed.
    public let ttl: String?
    /// The ports and ranges, as they were typed; none for those that were asked for.
    public let ports: [String]
    /// What it means. A duration counts from when it was typed.
    public let answer: QuestionAnswer

    private static let words: Set = ["once", "deny", "allow", "always"]

    /// Reads a line, typed at `now`; the error holds all that is wrong.
    public init(_ line: some StringProtocol, now: WallTime) throws(DocumentError) {
        let typed = line.split(whereSeparator: { $0 == " " || $0 == "\t" || $0 == "," }).map { $0.lowercased() }
        guard let word = typed.first, Self.words.contains(word) else {
            let expected =
                "expected once, deny, allow or always, with a duration (10m) or ports (8443) behind it if need be"
            throw DocumentError(problems: [Problem(file: "answer", line: 1, column: 1, path: "", message: expected)])
        }
        self.word = word
        ports = typed.dropFirst().filter { PortRange(parsing: $0) != nil }
        ttl = typed.dropFirst().last { PortRange(parsing: $0) == nil }
        answer = try QuestionAnswer.read(word: word, ttl: ttl, ports: ports, now: now)
    }
}
