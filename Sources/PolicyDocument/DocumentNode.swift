/// A document's tree as both JSON and YAML give it, with positions: there is one validation, whatever the syntax.
struct DocumentNode {
    /// A place in the document, from 1.
    struct Position: Hashable {
        var line = 1
        var column = 1
    }

    struct Member {
        let key: String
        let position: Position
        let value: DocumentNode
    }

    enum Value {
        case null
        case bool(Bool)
        /// A JSON number as it is written.
        case number(String)
        /// A quoted string.
        case string(String)
        /// A YAML scalar without quotes, which may be meant as text or as a number.
        case plain(String)
        case sequence([DocumentNode])
        case mapping([Member])
    }

    let value: Value
    let position: Position

    /// What it is, for messages.
    var kind: String {
        switch value {
        case .null: "nothing"
        case .bool(let value): "\(value)"
        case .number(let text), .plain(let text): text
        case .string(let text): "\"\(text)\""
        case .sequence: "a list"
        case .mapping: "a mapping"
        }
    }

    /// The text of a string; a YAML scalar counts as one.
    var text: String? {
        switch value {
        case .string(let text), .plain(let text): text
        default: nil
        }
    }

    var isNull: Bool { if case .null = value { true } else { false } }
}

/// Why a document has no tree.
struct SyntaxError: Error {
    var position: DocumentNode.Position
    let message: String
    var path = ""
}

/// Bounds that both syntaxes share.
enum DocumentLimits {
    static let bytes = 4 * 1024 * 1024
    static let depth = 32
    static let rules = 100_000
}
