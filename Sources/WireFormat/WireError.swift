/// Why bytes from a peer are not the message they claim to be. The text is fixed, so that nothing a peer sends ends up in a
/// log through it.
public struct WireError: Error, Sendable {
    /// Where the problem was found, in bytes from the start of what was parsed.
    public let offset: Int
    private let text: StaticString

    /// A problem at `offset`, said as one lower-case clause.
    public init(offset: Int, problem: StaticString) {
        self.offset = offset
        self.text = problem
    }

    /// What is wrong, as one lower-case clause.
    public var problem: String { "\(text)" }
}

extension WireError: Hashable {
    /// Equal offsets and equal texts.
    public static func == (left: Self, right: Self) -> Bool {
        left.offset == right.offset && left.problem == right.problem
    }

    /// Hashes the offset and the text.
    public func hash(into hasher: inout Hasher) {
        hasher.combine(offset)
        hasher.combine(problem)
    }
}

extension WireError: CustomStringConvertible {
    /// The problem and where it is: `record is empty at byte 5`.
    public var description: String { "\(text) at byte \(offset)" }
}
