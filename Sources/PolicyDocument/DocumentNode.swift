/// A document's tree as both JSON and YAML give it, with positions: there is one validation, whatever the syntax.
package struct DocumentNode {
    /// A place in the document, from 1.
    package struct Position: Hashable {
        package var line = 1
        package var column = 1

        /// The start of a document.
        package init() {}

        /// A place, by line and column.
        package init(line: Int, column: Int) {
            self.line = line
            self.column = column
        }
    }

    package struct Member {
        package let key: String
        package let position: Position
        package let value: DocumentNode
    }

    package enum Value {
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

    package let value: Value
    package let position: Position

    /// A node from its parts.
    package init(value: Value, position: Position) {
        self.value = value
        self.position = position
    }

    /// What it is, for messages.
    package var kind: String {
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
    package var text: String? {
        switch value {
        case .string(let text), .plain(let text): text
        default: nil
        }
    }

    package var isNull: Bool { if case .null = value { true } else { false } }
}

/// Why a document has no tree.
struct SyntaxError: Error {
    var position: DocumentNode.Position
    let message: String
    var path = ""
}

/// Bounds that both syntaxes share.
package enum DocumentLimits {
    static let bytes = 4 * 1024 * 1024
    /// Of a file of our own, in which what came in a document of ``bytes`` may take more room.
    package static let storedBytes = 16 * bytes
    static let depth = 32
    package static let rules = 100_000
}
