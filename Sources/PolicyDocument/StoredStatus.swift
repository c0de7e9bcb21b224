public import NetPrimitives

/// The `status` of a stored sandbox: flat members, as the program wrote them.
public struct StoredStatus: Sendable {
    private let file: String
    private let texts: [String: String]

    /// Reads the member `status` of a document.
    public init(bytes: [UInt8], file: String) throws(DocumentError) {
        self.file = file
        var texts: [String: String] = [:]
        let root = try PolicyDocument.tree(bytes, .json, file, atMost: DocumentLimits.storedBytes)
        if let root, case .mapping(let members) = root.value,
            let status = members.first(where: { $0.key == "status" }), case .mapping(let fields) = status.value.value
        {
            for field in fields {
                if case .number(let digits) = field.value.value { texts[field.key] = digits }
                if let text = field.value.text { texts[field.key] = text }
            }
        }
        self.texts = texts
    }

    /// A text that may be absent.
    public func optionalText(_ key: String) -> String? { texts[key] }

    /// A text that must be there.
    public func text(_ key: String) throws(DocumentError) -> String {
        guard let text = texts[key] else { throw missing(key) }
        return text
    }

    /// A number that must be there.
    public func number(_ key: String) throws(DocumentError) -> UInt64 {
        guard let number = UInt64(try text(key)) else { throw missing(key) }
        return number
    }

    /// A time that must be there.
    public func time(_ key: String) throws(DocumentError) -> WallTime {
        guard let time = Timestamp.time(parsing: try text(key).utf8) else { throw missing(key) }
        return time
    }

    /// The error for a member that is absent or not what it should be.
    public func missing(_ key: String) -> DocumentError {
        DocumentError(problems: [
            Problem(file: file, line: 1, column: 1, path: "status.\(key)", message: "missing or malformed")
        ])
    }
}
