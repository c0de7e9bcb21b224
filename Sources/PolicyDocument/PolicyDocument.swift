public import EgressPolicy
public import NetPrimitives

/// A policy as people and programs write it: the `networkPolicy` of a create request, in JSON or YAML.
///
///     bytes ──▶ JSONTree / YAMLTree ──▶ DocumentNode ──▶ PolicyReader ──▶ Policy, warnings
///                syntax, positions       one tree         one validation   or all problems
public struct PolicyDocument: Hashable, Sendable {
    /// How a document is written.
    public enum Format: Hashable, Sendable {
        /// RFC 8259, strictly.
        case json
        /// YAML without anchors, aliases and tags.
        case yaml
        /// By the file's name, else JSON when the first character is a brace, bracket or quote, else YAML.
        case automatic
    }

    /// What the document says.
    public var policy: Policy
    /// What is accepted, but probably not meant.
    public var warnings: [Problem]
    /// Where each of the policy's rules stands, in their order; empty where the policy was not read from a text.
    public var rulePlaces: [Place]
    /// The same for the rules of its set-up phase.
    public var setupPlaces: [Place]
    /// Where the set-up phase stands; `nil` when there is none.
    public var setupPlace: Place?
    /// Where the default action is stated; `nil` when it is not.
    public var defaultPlace: Place?

    /// A place in a document.
    public struct Place: Hashable, Sendable {
        /// The line, from 1.
        public let line: Int
        /// The column, from 1, in Unicode scalars.
        public let column: Int
        /// The field: `networkPolicy.egress[2]`.
        public let path: String

        /// A place from its parts.
        public init(line: Int, column: Int, path: String) {
            self.line = line
            self.column = column
            self.path = path
        }
    }

    /// A document from its parts.
    public init(policy: Policy, warnings: [Problem] = []) {
        self.policy = policy
        self.warnings = warnings
        (rulePlaces, setupPlaces) = ([], [])
    }

    /// Refuses a set-up phase where there can be none; `reason` is a clause that says why.
    public func refuseSetup(file: String, _ reason: String) throws(DocumentError) {
        guard policy.setup != nil else { return }
        let place = setupPlace ?? Place(line: 1, column: 1, path: "setup")
        let problem = Problem(file: file, line: place.line, column: place.column, path: place.path, message: reason)
        throw DocumentError(problems: [problem])
    }
}

extension PolicyDocument {
    /// Reads a policy: a bare object, one under `networkPolicy`, or a whole create request, of which only that field is
    /// read. An empty document, `null` and `{}` deny everything. Nothing is taken over in part: the error holds all
    /// problems.
    ///
    /// `file` is for messages; a rule's `ttl` counts from `now`.
    public static func load(
        bytes: [UInt8],
        format: Format,
        file: String,
        now: WallTime
    ) throws(DocumentError) -> PolicyDocument {
        var reader = PolicyReader(file: file, now: now)
        let root = try tree(bytes, format, file)
        let policy = reader.readDocument(root)
        try refuse(reader.problems)
        var document = PolicyDocument(policy: policy, warnings: reader.warnings)
        (document.rulePlaces, document.defaultPlace) = (reader.rulePlaces, reader.defaultPlace)
        (document.setupPlaces, document.setupPlace) = (reader.setupPlaces, reader.setupPlace)
        return document
    }

    /// Reads a list of rules alone, as a change to a policy has it.
    public static func loadRules(
        bytes: [UInt8],
        format: Format,
        file: String,
        now: WallTime
    ) throws(DocumentError) -> (rules: [Rule], warnings: [Problem]) {
        var reader = PolicyReader(file: file, now: now)
        let root = try tree(bytes, format, file) ?? DocumentNode(value: .null, position: .init())
        let rules = reader.readRules(root, "")
        if root.isNull { reader.report(root.position, "", "expected a list of rules, found nothing") }
        try refuse(reader.problems)
        return (rules, reader.warnings)
    }

    /// Reads a list of targets alone, as the removal of rules has it.
    public static func loadTargets(bytes: [UInt8], format: Format, file: String) throws(DocumentError) -> [Target] {
        var reader = PolicyReader(file: file, now: WallTime(microseconds: 0))
        let root = try tree(bytes, format, file) ?? DocumentNode(value: .null, position: .init())
        let targets = reader.readTargets(root)
        try refuse(reader.problems)
        return targets
    }

    /// Reads a list of strings, whatever they say.
    public static func loadTexts(bytes: [UInt8], format: Format, file: String) throws(DocumentError) -> [String] {
        var reader = PolicyReader(file: file, now: WallTime(microseconds: 0))
        let root = try tree(bytes, format, file) ?? DocumentNode(value: .null, position: .init())
        let texts = reader.readTexts(root)
        try refuse(reader.problems)
        return texts
    }

    /// Throws what is wrong, in the order of the document.
    package static func refuse(_ problems: [Problem]) throws(DocumentError) {
        guard !problems.isEmpty else { return }
        throw DocumentError(problems: problems.sorted { ($0.line, $0.column) < ($1.line, $1.column) })
    }

    /// The tree of a document; `nil` for an empty one.
    package static func tree(
        _ bytes: [UInt8],
        _ format: Format,
        _ file: String,
        atMost limit: Int = DocumentLimits.bytes
    ) throws(DocumentError) -> DocumentNode? {
        func failure(_ position: DocumentNode.Position, _ message: String, path: String = "") -> DocumentError {
            DocumentError(problems: [
                Problem(file: file, line: position.line, column: position.column, path: path, message: message)
            ])
        }
        guard bytes.count <= limit else {
            throw failure(.init(), "\(bytes.count) bytes: at most \(limit) are accepted")
        }
        guard String(validating: bytes, as: UTF8.self) != nil else { throw failure(.init(), "not UTF-8") }
        let text = bytes.starts(with: [0xef, 0xbb, 0xbf]) ? Array(bytes.dropFirst(3)) : bytes
        do {
            return isJSON(text, format, file) ? try JSONTree.parse(text) : try YAMLTree.parse(text)
        } catch {
            throw failure(error.position, error.message, path: error.path)
        }
    }

    static func isJSON(_ text: [UInt8], _ format: Format, _ file: String) -> Bool {
        switch format {
        case .json: return true
        case .yaml: return false
        case .automatic:
            if file.hasSuffix(".json") { return true }
            if file.hasSuffix(".yaml") || file.hasSuffix(".yml") { return false }
            return text.first { !" \t\r\n".utf8.contains($0) }.map { "{[\"".utf8.contains($0) } ?? false
        }
    }
}
