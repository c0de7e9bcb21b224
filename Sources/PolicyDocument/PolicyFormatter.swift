import EgressPolicy
public import NetPrimitives

/// Writes a policy's text in the one form that reviewers get used to, without dumping it anew: what a person wrote beside
/// it, comments first of all, stays where it is.
///
/// In YAML only tokens change: rules in braces on one line get their keys in order and even spacing, and targets, actions
/// and protocols their canonical spelling; lines lose what is blank at their end. Rules over several lines keep their lines
/// in the order in which they are. JSON, which has no comments, is laid out anew.
public enum PolicyFormatter {
    /// What formatting made of a text.
    public struct Formatted: Hashable, Sendable {
        /// The formatted text, which means the same: what else it holds, too, is unchanged.
        public let bytes: [UInt8]
        /// What is not in the usual form all the same, in the order of the kinds.
        public let left: [Left]
    }

    /// Something that was left as it is.
    public struct Left: Hashable, Sendable, Encodable {
        /// What kind of thing.
        public enum Kind: String, Hashable, Sendable, CaseIterable, Encodable {
            /// The whole text: formatted it would mean something else, or nothing.
            case text
            /// Blanks at the end of lines, as some of them are a part of what is written there.
            case blanks
            /// The order of a rule's keys, as it does not stand in braces on one line.
            case order
            /// A spelling, as it was not found where it should stand.
            case spelling
        }

        /// What kind of thing.
        public let kind: Kind
        /// The lines of the formatted text where it is, in order; empty for the whole.
        public let lines: [Int]
    }

    /// Formats the text of a valid policy.
    public static func format(
        bytes: [UInt8],
        format: PolicyDocument.Format,
        file: String,
        now: WallTime
    ) throws(DocumentError) -> Formatted {
        let policy = try PolicyDocument.load(bytes: bytes, format: format, file: file, now: now).policy
        guard let root = try PolicyDocument.tree(bytes, format, file) else { return Formatted(bytes: bytes, left: []) }
        let isJSON = PolicyDocument.isJSON(bytes, format, file)
        // Blanks at the end of a line may be part of a text over several lines: then they stay.
        for isTrimmed in [true, false] {
            let text = isJSON ? json(root) : yaml(bytes, root, isTrimmed: isTrimmed)
            let formatted = Array(text.utf8)
            guard let again = try? PolicyDocument.load(bytes: formatted, format: format, file: file, now: now).policy,
                let tree = try? PolicyDocument.tree(formatted, format, file)
            else { continue }
            guard again == policy, signature(tree) == signature(root) else { continue }
            return Formatted(bytes: formatted, left: isJSON ? [] : left(in: formatted, tree))
        }
        return Formatted(bytes: bytes, left: [Left(kind: .text, lines: [])])
    }

    private static let ruleKeys = ["action", "target", "ports", "protocol", "expiresAt", "ttl", "comment"]
    private static let policyKeys = ["defaultAction", "default_action", "mode", "egress", "setup"]
    private static let setupKeys = ["expiresAt", "ttl", "egress"]

    /// The mapping that is the policy.
    private static func policyNode(_ root: DocumentNode) -> DocumentNode {
        guard case .mapping(let members) = root.value else { return root }
        return members.first { $0.key == "networkPolicy" }?.value ?? root
    }

    /// All but the policy, as text: what must not change.
    private static func signature(_ node: DocumentNode, isRoot: Bool = true) -> String {
        switch node.value {
        case .mapping(let members):
            let others = isRoot ? members.filter { !policyKeys.contains($0.key) && $0.key != "networkPolicy" } : members
            return "{"
                + others.map { "\($0.key.debugDescription):" + signature($0.value, isRoot: false) }.joined(
                    separator: ","
                )
                + "}"
        case .sequence(let elements):
            return "[" + elements.map { signature($0, isRoot: false) }.joined(separator: ",") + "]"
        default: return node.kind.debugDescription
        }
    }

    /// The canonical spelling of a field's value; `nil` where it has none.
    private static func canonical(_ key: String, _ text: String) -> String? {
        switch key {
        case "target": (try? Target(parsing: text))?.description
        case "action", "protocol", "mode", "defaultAction", "default_action": text.lowercased()
        default: nil
        }
    }
}

// MARK: - YAML

extension PolicyFormatter {
    private struct Edit {
        let line: Int
        let start: Int
        let end: Int
        let text: String
    }

    private static func yaml(_ bytes: [UInt8], _ root: DocumentNode, isTrimmed: Bool) -> String {
        var text = String(decoding: bytes, as: UTF8.self)
        if text.unicodeScalars.first == "\u{feff}" { text.unicodeScalars.removeFirst() }
        var lines = text.unicodeScalars.split(separator: "\n", omittingEmptySubsequences: false).map { Array($0) }
        let edits = edits(of: policyNode(root), lines)
        for edit in edits.sorted(by: { ($0.line, $0.start) > ($1.line, $1.start) }) {
            lines[edit.line].replaceSubrange(edit.start..<edit.end, with: Array(edit.text.unicodeScalars))
        }
        if isTrimmed {
            for index in lines.indices {
                while let last = lines[index].last, " \t\r".unicodeScalars.contains(last) { lines[index].removeLast() }
            }
            while lines.count > 1, lines.last!.isEmpty { lines.removeLast() }
            lines.append([])
        }
        var result = String.UnicodeScalarView()
        for (index, line) in lines.enumerated() {
            if index > 0 { result.append("\n") }
            result.append(contentsOf: line)
        }
        return String(result)
    }

    private static func edits(of policy: DocumentNode, _ lines: [[Unicode.Scalar]]) -> [Edit] {
        guard case .mapping(let members) = policy.value else { return [] }
        var edits: [Edit] = []
        for member in members {
            if member.key == "default_action",
                let raw = raw(.init(value: .plain(member.key), position: member.position), lines)
            {
                edits.append(edit(member.position, raw, "defaultAction"))
            }
            if member.key == "egress", case .sequence(let rules) = member.value.value {
                for rule in rules { edits += self.edits(ofRule: rule, lines) }
            } else if member.key == "setup" {
                edits += self.edits(of: member.value, lines)
            } else {
                edits += edit(member, lines)
            }
        }
        return edits
    }

    private static func edits(ofRule rule: DocumentNode, _ lines: [[Unicode.Scalar]]) -> [Edit] {
        guard case .mapping(let members) = rule.value else { return [] }
        if let edit = edit(ofBraces: rule, members, lines) { return [edit] }
        return members.flatMap { edit($0, lines) }
    }

    /// A whole rule in braces on one line; `nil` where it is not one, or holds what is not understood.
    private static func edit(
        ofBraces rule: DocumentNode,
        _ members: [DocumentNode.Member],
        _ lines: [[Unicode.Scalar]]
    ) -> Edit? {
        let (line, start) = (rule.position.line - 1, rule.position.column - 1)
        guard lines.indices.contains(line), lines[line].indices.contains(start), lines[line][start] == "{",
            let end = closingBrace(lines[line], from: start)
        else { return nil }
        var fields: [(rank: Int, text: String)] = []
        for member in members {
            guard member.position.line == rule.position.line, let rank = ruleKeys.firstIndex(of: member.key) else {
                return nil
            }
            guard let value = value(member, lines) else { return nil }
            fields.append((rank, "\(member.key): \(value)"))
        }
        let text = fields.sorted { $0.rank < $1.rank }.map(\.text).joined(separator: ", ")
        return Edit(line: line, start: start, end: end + 1, text: "{\(text)}")
    }

    private static func value(_ member: DocumentNode.Member, _ lines: [[Unicode.Scalar]]) -> String? {
        if case .sequence(let elements) = member.value.value {
            let texts = elements.compactMap { raw($0, lines) }
            guard texts.count == elements.count else { return nil }
            return "[" + texts.joined(separator: ", ") + "]"
        }
        guard let raw = raw(member.value, lines) else { return nil }
        return respelled(member, raw) ?? raw
    }

    /// A value that stands by itself.
    private static func edit(_ member: DocumentNode.Member, _ lines: [[Unicode.Scalar]]) -> [Edit] {
        guard let raw = raw(member.value, lines), let text = respelled(member, raw) else { return [] }
        return [edit(member.value.position, raw, text)]
    }

    private static func edit(_ position: DocumentNode.Position, _ raw: String, _ text: String) -> Edit {
        let start = position.column - 1
        return Edit(line: position.line - 1, start: start, end: start + raw.unicodeScalars.count, text: text)
    }

    /// The canonical spelling with the quotes that `raw` has; `nil` where there is nothing to change.
    private static func respelled(_ member: DocumentNode.Member, _ raw: String) -> String? {
        guard let text = member.value.text, let canonical = canonical(member.key, text), canonical != text else {
            return nil
        }
        let quote = raw.hasPrefix("\"") || raw.hasPrefix("'") ? String(raw.prefix(1)) : ""
        return quote + canonical + quote
    }

    /// A scalar as it is written; `nil` where it goes over several lines or is not found.
    private static func raw(_ node: DocumentNode, _ lines: [[Unicode.Scalar]]) -> String? {
        let (line, start) = (node.position.line - 1, node.position.column - 1)
        guard lines.indices.contains(line), lines[line].indices.contains(start) else { return nil }
        let rest = lines[line][start...]
        var raw = String.UnicodeScalarView()
        switch node.value {
        case .string:
            guard let quote = rest.first, quote == "\"" || quote == "'",
                let end = closingQuote(lines[line], from: start)
            else { return nil }
            raw.append(contentsOf: rest[...end])
        case .plain(let text):
            guard rest.starts(with: text.unicodeScalars) else { return nil }
            raw.append(contentsOf: text.unicodeScalars)
        default: return nil
        }
        return String(raw)
    }

    private static func closingQuote(_ line: [Unicode.Scalar], from start: Int) -> Int? {
        let quote = line[start]
        var index = start + 1
        while index < line.count {
            if quote == "\"", line[index] == "\\" {
                index += 2
                continue
            }
            if line[index] == quote {
                guard quote == "'", index + 1 < line.count, line[index + 1] == "'" else { return index }
                index += 1
            }
            index += 1
        }
        return nil
    }

    private static func closingBrace(_ line: [Unicode.Scalar], from start: Int) -> Int? {
        var depth = 0
        var index = start
        while index < line.count {
            switch line[index] {
            case "{": depth += 1
            case "}":
                depth -= 1
                if depth == 0 { return index }
            // A quote within a word is a part of it.
            case "\"", "'":
                if index > 0, " {[,:".unicodeScalars.contains(line[index - 1]) {
                    guard let end = closingQuote(line, from: index) else { return nil }
                    index = end
                }
            case "#": if index > 0, line[index - 1] == " " { return nil }
            default: break
            }
            index += 1
        }
        return nil
    }
}

// MARK: - What is left

extension PolicyFormatter {
    /// What of a YAML text is not in the usual form.
    private static func left(in bytes: [UInt8], _ root: DocumentNode) -> [Left] {
        var found: [Left.Kind: [Int]] = [:]
        for (index, line) in bytes.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false).enumerated() {
            if let last = line.last, " \t\r".utf8.contains(last) { found[.blanks, default: []].append(index + 1) }
        }
        func look(at node: DocumentNode, isRule: Bool) {
            guard case .mapping(let members) = node.value else { return }
            let ranks = members.compactMap { ruleKeys.firstIndex(of: $0.key) }
            if isRule, ranks != ranks.sorted() { found[.order, default: []].append(node.position.line) }
            for member in members {
                switch (member.key, member.value.value) {
                case ("egress", .sequence(let rules)): rules.forEach { look(at: $0, isRule: true) }
                case ("setup", _): look(at: member.value, isRule: false)
                default:
                    let text = member.value.text ?? ""
                    guard member.key == "default_action" || canonical(member.key, text) ?? text != text else {
                        continue
                    }
                    found[.spelling, default: []].append(member.position.line)
                }
            }
        }
        look(at: policyNode(root), isRule: false)
        return Left.Kind.allCases.compactMap { kind in found[kind].map { Left(kind: kind, lines: $0) } }
    }
}

// MARK: - JSON

extension PolicyFormatter {
    private static func json(_ root: DocumentNode) -> String {
        json(root, policyNode(root).position, indentation: "") + "\n"
    }

    private static func json(_ node: DocumentNode, _ policy: DocumentNode.Position, indentation: String) -> String {
        let inner = indentation + "  "
        switch node.value {
        case .null: return "null"
        case .bool(let value): return "\(value)"
        case .number(let text): return text
        case .string(let text), .plain(let text): return PolicyDocument.quote(text)
        case .sequence(let elements):
            if elements.isEmpty { return "[]" }
            let texts = elements.map { inner + json($0, policy, indentation: inner) }
            return "[\n" + texts.joined(separator: ",\n") + "\n\(indentation)]"
        case .mapping(let members):
            if members.isEmpty { return "{}" }
            if node.position == policy { return object(members, policyKeys, indentation) }
            let texts = members.map { member in
                "\(inner)\(PolicyDocument.quote(member.key)): " + json(member.value, policy, indentation: inner)
            }
            return "{\n" + texts.joined(separator: ",\n") + "\n\(indentation)}"
        }
    }

    /// A policy or a set-up phase: keys in order, one rule a line.
    private static func object(_ members: [DocumentNode.Member], _ keys: [String], _ indentation: String) -> String {
        let inner = indentation + "  "
        let texts = sorted(members, by: keys).map { member in
            let key = member.key == "default_action" ? "defaultAction" : member.key
            return "\(inner)\(PolicyDocument.quote(key)): \(value(member, inner))"
        }
        return "{\n" + texts.joined(separator: ",\n") + "\n\(indentation)}"
    }

    private static func value(_ member: DocumentNode.Member, _ indentation: String) -> String {
        switch (member.key, member.value.value) {
        case ("egress", .sequence(let rules)) where !rules.isEmpty:
            let inner = indentation + "  "
            return "[\n" + rules.map { inner + rule($0) }.joined(separator: ",\n") + "\n\(indentation)]"
        case ("setup", .mapping(let members)): return object(members, setupKeys, indentation)
        default: return field(member)
        }
    }

    private static func rule(_ node: DocumentNode) -> String {
        guard case .mapping(let members) = node.value else { return "null" }
        let fields = sorted(members, by: ruleKeys).map { "\(PolicyDocument.quote($0.key)): \(field($0))" }
        return "{" + fields.joined(separator: ", ") + "}"
    }

    /// A field of a policy or rule, on one line.
    private static func field(_ member: DocumentNode.Member) -> String {
        switch member.value.value {
        case .null: return "null"
        case .bool(let value): return "\(value)"
        case .number(let text): return text
        case .string(let text), .plain(let text): return PolicyDocument.quote(canonical(member.key, text) ?? text)
        case .sequence(let elements):
            return "["
                + elements.map { field(.init(key: "", position: $0.position, value: $0)) }.joined(separator: ", ") + "]"
        case .mapping: return "{}"  // no field of a valid policy is one
        }
    }

    private static func sorted(_ members: [DocumentNode.Member], by keys: [String]) -> [DocumentNode.Member] {
        members.enumerated()
            .sorted {
                (keys.firstIndex(of: $0.element.key) ?? keys.count, $0.offset)
                    < (keys.firstIndex(of: $1.element.key) ?? keys.count, $1.offset)
            }
            .map(\.element)
    }
}
