import CYaml
import Yams

/// YAML through Yams, less what a policy has no use for and people get hurt by: anchors and aliases, tags, keys that
/// are no strings.
enum YAMLTree {
    /// Parses bytes that are valid UTF-8; `nil` for an empty document.
    static func parse(_ bytes: [UInt8]) throws(SyntaxError) -> DocumentNode? {
        do {
            return try compose(bytes)
        } catch let error as SyntaxError {
            throw error
        } catch let error as YamlError {
            var described = describe(error, String(decoding: bytes, as: UTF8.self))
            let lines = bytes.count { $0 == UInt8(ascii: "\n") } + 1
            if described.position.line > lines { described.position = .init(line: lines, column: 1) }
            throw described
        } catch {
            throw SyntaxError(position: .init(), message: "\(error)")
        }
    }

    /// ``parse(_:)``, with what Yams throws as it is.
    private static func compose(_ bytes: [UInt8]) throws -> DocumentNode? {
        try refuseWhatGrows(bytes)
        var text = String(decoding: bytes, as: UTF8.self)
        // Yams keeps a pointer to the text's storage, which a text this short does not have. (Positions behind its end are cut
        // back by who calls.)
        if bytes.count < 16 { text += String(repeating: "\n", count: 16) }
        // Without rules nothing is resolved: what a scalar means depends on the field, not on its looks.
        let parser = try Parser(yaml: text, resolver: .basic, encoding: .utf8)
        // The parser owns the anchors that nodes refer to.
        return try withExtendedLifetime(parser) { try parser.singleRoot().map(convert) }
    }

    private static func position(_ mark: Mark?) -> DocumentNode.Position {
        DocumentNode.Position(line: mark?.line ?? 1, column: mark?.column ?? 1)
    }

    private static func convert(_ node: Node) throws -> DocumentNode {
        let position = position(node.mark)
        if node.anchor != nil { throw SyntaxError(position: position, message: aliasMessage) }
        switch node {
        case .scalar(let scalar):
            return DocumentNode(value: try convert(scalar, position), position: position)
        case .sequence(let sequence):
            try refuseTag(sequence.tag, position)
            let elements = try sequence.map(convert)
            return DocumentNode(value: .sequence(elements), position: position)
        case .mapping(let mapping):
            try refuseTag(mapping.tag, position)
            let members = try mapping.map { key, value in
                guard case .scalar(let scalar) = key, key.anchor == nil else {
                    throw SyntaxError(position: self.position(key.mark), message: keyMessage)
                }
                return DocumentNode.Member(
                    key: scalar.string,
                    position: self.position(scalar.mark),
                    value: try convert(value)
                )
            }
            return DocumentNode(value: .mapping(members), position: position)
        case .alias:
            throw SyntaxError(position: position, message: aliasMessage)
        }
    }

    private static func convert(_ scalar: Node.Scalar, _ position: DocumentNode.Position) throws -> DocumentNode.Value {
        let tag = scalar.tag.description
        let isText = tag == "tag:yaml.org,2002:str"
        guard isText || tag.isEmpty else {
            throw SyntaxError(position: position, message: "tags are not accepted")
        }
        guard scalar.style == .plain && !isText else { return .string(scalar.string) }
        return ["", "~", "null", "Null", "NULL"].contains(scalar.string) ? .null : .plain(scalar.string)
    }

    private static func refuseTag(_ tag: Tag, _ position: DocumentNode.Position) throws {
        guard tag.description.isEmpty else { throw SyntaxError(position: position, message: "tags are not accepted") }
    }
}

// MARK: - What grows

extension YAMLTree {
    private static let aliasMessage = "anchors and aliases are not accepted: write the value out"
    private static let keyMessage = "expected a key that is a name"

    /// What is begun and not ended yet.
    private struct Collection {
        let isMapping: Bool
        /// How many nodes stand in it so far, keys included.
        var count = 0

        /// Whether the next node is a key.
        var expectsKey: Bool { isMapping && count.isMultiple(of: 2) }
    }

    /// Refuses text on which Yams would spend time that grows faster than the text, before it does: aliases, in whose place it puts
    /// what the anchor names; collections as keys, each of which it compares as a whole; and what is nested deeply.
    ///
    /// The document's events are looked at, as libyaml tells them to Yams too. What is no YAML is left to Yams, which says why.
    private static func refuseWhatGrows(_ bytes: [UInt8]) throws(SyntaxError) {
        guard !bytes.isEmpty else { return }
        // It points to itself.
        let parser = UnsafeMutablePointer<yaml_parser_t>.allocate(capacity: 1)
        defer { parser.deallocate() }
        guard yaml_parser_initialize(parser) == 1 else { return }
        defer { yaml_parser_delete(parser) }
        yaml_parser_set_encoding(parser, YAML_UTF8_ENCODING)
        try bytes.withUnsafeBufferPointer { input throws(SyntaxError) in
            yaml_parser_set_input_string(parser, input.baseAddress, input.count)
            try refuseWhatGrows(in: parser)
        }
    }

    private static func refuseWhatGrows(in parser: UnsafeMutablePointer<yaml_parser_t>) throws(SyntaxError) {
        var (open, anchors): ([Collection], Set<String>) = ([], [])
        // Said at the end: an alias further on is the better reason.
        var problem: SyntaxError?
        reading: while true {
            var event = yaml_event_t()
            guard yaml_parser_parse(parser, &event) == 1 else { break }
            defer { yaml_event_delete(&event) }
            let mark = event.start_mark
            let position = DocumentNode.Position(line: Int(mark.line) + 1, column: Int(mark.column) + 1)
            let isCollection = [YAML_SEQUENCE_START_EVENT, YAML_MAPPING_START_EVENT].contains(event.type)
            var anchor: UnsafeMutablePointer<yaml_char_t>?
            switch event.type {
            case YAML_ALIAS_EVENT:
                let isKnown = anchors.contains(String(cString: event.data.alias.anchor))
                throw SyntaxError(position: position, message: isKnown ? aliasMessage : quoteMessage)
            case YAML_SCALAR_EVENT: anchor = event.data.scalar.anchor
            case YAML_SEQUENCE_START_EVENT: anchor = event.data.sequence_start.anchor
            case YAML_MAPPING_START_EVENT: anchor = event.data.mapping_start.anchor
            case YAML_SEQUENCE_END_EVENT, YAML_MAPPING_END_EVENT:
                open.removeLast()
                continue
            case YAML_STREAM_START_EVENT, YAML_DOCUMENT_START_EVENT: continue
            default: break reading
            }
            guard open.count < DocumentLimits.depth else {
                throw SyntaxError(position: position, message: "nested deeper than \(DocumentLimits.depth) levels")
            }
            if let anchor { anchors.insert(String(cString: anchor)) }
            if let last = open.indices.last {
                if isCollection, open[last].expectsKey, problem == nil {
                    problem = SyntaxError(position: position, message: keyMessage)
                }
                open[last].count += 1
            }
            if isCollection { open.append(Collection(isMapping: event.type == YAML_MAPPING_START_EVENT)) }
        }
        if let problem { throw problem }
    }
}

// MARK: - What Yams says

extension YAMLTree {
    private static let quoteMessage = "a value that starts with * must be quoted, as in \"*.example.com\""

    private static func describe(_ error: YamlError, _ text: String) -> SyntaxError {
        switch error {
        case .scanner(let context, let problem, let mark, _), .parser(let context, let problem, let mark, _),
            .composer(let context, let problem, let mark, _):
            if context?.text.contains("an alias") == true || problem.contains("undefined alias") {
                return SyntaxError(position: position(context?.mark ?? mark), message: quoteMessage)
            }
            if problem == "but found another document" {
                return SyntaxError(position: position(mark), message: "expected one document, found another")
            }
            let prefix = context.map { $0.text + ": " } ?? ""
            return SyntaxError(position: position(mark), message: "not YAML: " + prefix + problem)
        case .reader(let problem, let offset, _, _):
            return SyntaxError(position: place(ofByte: offset ?? 0, in: text), message: "not YAML: " + problem)
        case .duplicatedKeysInMapping(let keys, let context):
            let first = position(context.mark)
            let key = keys.first ?? ""
            return SyntaxError(
                position: again(key, after: first, in: text) ?? first,
                message: "duplicate key",
                path: path(of: key, at: first, in: text) ?? key
            )
        default:
            return SyntaxError(position: .init(), message: "not YAML")
        }
    }

    /// Where `key`, which Yams found at `first`, stands for the second time: in block style, on a later line at the same
    /// column. `nil` in flow style, where the first place is as good.
    private static func again(
        _ key: String,
        after first: DocumentNode.Position,
        in text: String
    ) -> DocumentNode.Position? {
        let spellings = [key, "\"\(key)\"", "'\(key)'"]
        let lines = text.split(separator: "\n", omittingEmptySubsequences: false)
        for (index, line) in lines.enumerated().dropFirst(first.line) {
            let indentation = line.prefix { $0 == " " }.count
            if indentation + 1 < first.column, indentation < line.count { return nil }
            let content = line.dropFirst(first.column - 1)
            let isKey = spellings.contains { spelling in
                content.hasPrefix(spelling)
                    && content.dropFirst(spelling.count).drop { $0 == " " }.first == ":"
            }
            if indentation + 1 == first.column, isKey { return .init(line: index + 1, column: first.column) }
        }
        return nil
    }

    private static func place(ofByte offset: Int, in text: String) -> DocumentNode.Position {
        var position = DocumentNode.Position()
        for scalar in String(decoding: text.utf8.prefix(offset), as: UTF8.self).unicodeScalars {
            position =
                scalar == "\n"
                ? .init(line: position.line + 1, column: 1) : .init(line: position.line, column: position.column + 1)
        }
        return position
    }

    /// The path of the key at `position`: found in the document cut off behind it, which Yams can read. Only in block
    /// style.
    private static func path(of key: String, at position: DocumentNode.Position, in text: String) -> String? {
        let lines = text.split(separator: "\n", omittingEmptySubsequences: false)
        guard position.line <= lines.count else { return nil }
        let start = String(lines[position.line - 1].unicodeScalars.prefix(position.column - 1))
        let cut = lines[..<(position.line - 1)].joined(separator: "\n") + "\n" + start + key + ": null\n"
        // The key may stand twice even there, where Yams sees other lines than these: it is not described again.
        guard let root = try? compose(Array(cut.utf8)) else { return nil }
        func search(_ node: DocumentNode, _ path: String) -> String? {
            switch node.value {
            case .sequence(let elements):
                for (index, element) in elements.enumerated() {
                    if let found = search(element, "\(path)[\(index)]") { return found }
                }
            case .mapping(let members):
                for member in members {
                    let memberPath = path.isEmpty ? member.key : "\(path).\(member.key)"
                    if member.position == position || member.position.line == position.line && member.key == key {
                        return memberPath
                    }
                    if let found = search(member.value, memberPath) { return found }
                }
            default: break
            }
            return nil
        }
        return search(root, "")
    }
}
