/// Something about a document that is wrong, or merely worth a second look, and where.
public struct Problem: Hashable, Sendable {
    /// The file's name, as it was given.
    public let file: String
    /// The line, from 1.
    public let line: Int
    /// The column, from 1, in Unicode scalars.
    public let column: Int
    /// The field: `networkPolicy.egress[2].target`; empty for the document as a whole.
    public let path: String
    /// What is wrong and what was expected.
    public let message: String

    /// A problem from its parts.
    public init(file: String, line: Int, column: Int, path: String, message: String) {
        self.file = file
        self.line = line
        self.column = column
        self.path = path
        self.message = message
    }
}

extension Problem: CustomStringConvertible {
    /// `file:line:column: path: message`, in one line.
    public var description: String {
        let text = "\(file):\(line):\(column): " + (path.isEmpty ? "" : "\(path): ") + message
        return text.inOneLine
    }
}

extension String {
    /// It as a line for a terminal: what would end the line, hide in it or move the cursor is escaped as `\u{1B}`. A document may
    /// come from anywhere, and what is said of it quotes it.
    package var inOneLine: String {
        unicodeScalars.map { scalar in
            switch scalar.properties.generalCategory {
            case .control, .format, .lineSeparator, .paragraphSeparator: scalar.escaped(asASCII: true)
            default: String(scalar)
            }
        }
        .joined()
    }
}

/// A document that is refused as a whole, with everything that is wrong with it.
public struct DocumentError: Error, Hashable, Sendable {
    /// All problems, in order of the document; never empty.
    public let problems: [Problem]

    /// An error from its problems.
    public init(problems: [Problem]) {
        self.problems = problems
    }
}

extension DocumentError: CustomStringConvertible {
    /// One problem a line.
    public var description: String { problems.map(\.description).joined(separator: "\n") }
}
