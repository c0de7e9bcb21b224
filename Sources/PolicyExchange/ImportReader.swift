import EgressPolicy
import NetPrimitives
import PolicyDocument

/// Collects what comes of another tool's document: rules, notes and problems, in the order of the policy.
struct ImportReader {
    typealias Position = DocumentNode.Position

    /// A string of a list.
    struct Element {
        let text: String
        let position: Position
        let path: String
    }

    /// The file's name, for messages.
    let file: String
    /// What happens to whatever no rule matches.
    var defaultAction = RuleAction.deny
    private(set) var problems: [Problem] = []
    private(set) var entries: [PolicyImport.Entry] = []
    private var rules = 0

    init(file: String) {
        self.file = file
    }

    /// The document's tree.
    func tree(_ bytes: [UInt8]) throws(DocumentError) -> DocumentNode {
        try PolicyDocument.tree(bytes, .automatic, file) ?? DocumentNode(value: .null, position: .init())
    }

    /// What was collected, or all problems.
    func finish(source: String) throws(DocumentError) -> PolicyImport {
        var problems = problems
        if rules > DocumentLimits.rules {
            let message = "more than \(DocumentLimits.rules) rules come of it"
            problems.append(Problem(file: file, line: 1, column: 1, path: "", message: message))
        }
        try PolicyDocument.refuse(problems)
        return PolicyImport(entries: entries, source: source, defaultAction: defaultAction)
    }
}

// MARK: - Collecting

extension ImportReader {
    /// Whether so many rules came of it that the rest does not matter: the document is refused.
    var isOverfull: Bool { rules > DocumentLimits.rules }

    mutating func add(_ rule: Rule) {
        // Long lists of ports count as several.
        rules += 1 + rule.ports.count / 16
        if !isOverfull { entries.append(.rule(rule)) }
    }

    mutating func remark(_ text: String) {
        entries.append(.remark(Excerpt.text(text, limit: 400)))
    }

    mutating func note(_ effect: PolicyImport.Note.Effect, _ position: Position, _ path: String, _ message: String) {
        let note = PolicyImport.Note(
            effect: effect,
            path: Excerpt.text(path),
            line: position.line,
            column: position.column,
            message: Excerpt.text(message, limit: 600)
        )
        entries.append(.note(note))
    }

    mutating func report(_ position: Position, _ path: String, _ message: String) {
        let shown = Excerpt.text(message, limit: 600)
        problems.append(
            Problem(file: file, line: position.line, column: position.column, path: Excerpt.text(path), message: shown)
        )
    }

    /// Reports that something else than `expected` was found.
    mutating func expect(_ expected: String, at node: DocumentNode, _ path: String) {
        report(node.position, path, "expected \(expected), found \(Excerpt.text(node.kind))")
    }
}

// MARK: - Parts

extension ImportReader {
    static func join(_ path: String, _ key: String) -> String { path.isEmpty ? key : "\(path).\(key)" }

    /// The members of a mapping, by key. A key that stands twice is a problem; so is one that is not `known`, where
    /// known keys are given: what it restricts could not be told.
    mutating func members(of node: DocumentNode, _ path: String, known: [String]? = nil) -> [String: DocumentNode
        .Member]?
    {
        guard case .mapping(let members) = node.value else {
            expect("a mapping", at: node, path)
            return nil
        }
        var found: [String: DocumentNode.Member] = [:]
        for member in members {
            let path = Self.join(path, member.key)
            if found.updateValue(member, forKey: member.key) != nil {
                report(member.position, path, "duplicate key")
            } else if let known, !known.contains(member.key) {
                report(
                    member.position,
                    path,
                    "unknown key: what it means for egress is not known here; expected "
                        + Spelling.expectation(of: known, for: member.key)
                )
            }
        }
        return found
    }

    /// The elements of a list; none for `null`.
    mutating func elements(of node: DocumentNode, _ path: String, expected: String) -> [DocumentNode] {
        switch node.value {
        case .null: return []
        case .sequence(let elements): return elements
        default:
            expect("a list of \(expected)", at: node, path)
            return []
        }
    }

    /// The strings of a list; none for `null`.
    mutating func strings(of node: DocumentNode, _ path: String, expected: String) -> [Element] {
        elements(of: node, path, expected: expected).enumerated().compactMap { index, element in
            let path = "\(path)[\(index)]"
            guard let text = element.text else {
                expect("a string", at: element, path)
                return nil
            }
            return Element(text: text, position: element.position, path: path)
        }
    }

    /// A truth value, as JSON and as YAML have it.
    mutating func bool(_ node: DocumentNode, _ path: String) -> Bool? {
        switch node.value {
        case .bool(let value): return value
        case .plain(let text) where ["true", "True", "TRUE"].contains(text): return true
        case .plain(let text) where ["false", "False", "FALSE"].contains(text): return false
        default:
            expect("true or false", at: node, path)
            return nil
        }
    }
}

// MARK: - Hosts and addresses

extension ImportReader {
    /// Every port of a transport, where a rule has to list them.
    static let allPorts = [PortRange.all]

    /// A name, `*.name` or an address, and nothing else that a target of ours may be.
    mutating func host(_ text: String, _ position: Position, _ path: String) -> Target? {
        let target: Target
        do {
            target = try Target(parsing: text)
        } catch {
            report(position, path, "\(error)")
            return nil
        }
        switch target {
        case .name, .subdomains: return target
        case .addresses where !text.utf8.contains(UInt8(ascii: "/")): return target
        default:
            report(position, path, "expected a name, *.name or an address, found \"\(Excerpt.text(text))\"")
            return nil
        }
    }

    /// A host with a port behind it or without: `name`, `name:443`, `192.0.2.7:443`, `[2001:db8::1]:443`.
    mutating func endpoint(_ element: Element) -> (host: String, port: PortRange?)? {
        let text = element.text
        let colons = text.utf8.count { $0 == UInt8(ascii: ":") }
        var host = text[...]
        var port: Substring?
        if text.hasPrefix("[") {
            guard let close = text.firstIndex(of: "]") else {
                report(element.position, element.path, "expected ] behind the address, found \"\(Excerpt.text(text))\"")
                return nil
            }
            host = text[text.index(after: text.startIndex)..<close]
            let rest = text[text.index(after: close)...]
            if !rest.isEmpty { port = rest.hasPrefix(":") ? rest.dropFirst() : "" }
        } else if colons == 1, let colon = text.firstIndex(of: ":") {
            host = text[..<colon]
            port = text[text.index(after: colon)...]
        }
        guard let port else { return (String(host), nil) }
        guard let range = PortRange(parsing: String(port)), range.lower == range.upper else {
            report(
                element.position,
                element.path,
                "expected a port of 1...65535 behind the colon, found \"\(Excerpt.text(text))\""
            )
            return nil
        }
        return (String(host), range)
    }

    /// An address block. Bits behind the prefix length do not count, as the tools that are written in Go and Python
    /// have it.
    mutating func prefix(_ text: String, _ position: Position, _ path: String) -> IPPrefix? {
        do {
            return try IPPrefix(parsing: text)
        } catch .hostBitsSet(let prefix) {
            return prefix
        } catch {
            report(
                position,
                path,
                "expected an address or a CIDR such as 192.0.2.0/24, found \"\(Excerpt.text(text))\""
            )
            return nil
        }
    }
}

extension IPPrefix {
    /// The guard range that holds all of the prefix: a rule about such a prefix opens a part of it.
    var guardRange: IPPrefix? { GuardRanges.common.first { $0.contains(self) } }
}

extension PortRange {
    /// All ports but those of `ranges`.
    static func complement(_ ranges: [PortRange]) -> [PortRange] {
        var left: [PortRange] = []
        var next = 1
        for range in merged(ranges) {
            if next < Int(range.lower) { left.append(PortRange(UInt16(next), range.lower - 1)!) }
            next = Int(range.upper) + 1
        }
        if next <= 65_535 { left.append(PortRange(UInt16(next), 65_535)!) }
        return left
    }
}

extension ImportReader {
    /// Takes the lines of another reader over, behind those that are there.
    mutating func append(_ other: ImportReader) {
        for entry in other.entries {
            if case .rule(let rule) = entry { add(rule) } else { entries.append(entry) }
        }
        // What the other did not keep counts, too.
        rules = max(rules, other.rules)
    }

    /// Takes problems over from a reader that read another part.
    mutating func adopt(_ others: [Problem]) {
        problems += others
    }
}
