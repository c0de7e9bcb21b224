/// One thing that was tried of this machine, and what came of it.
public struct Finding: Hashable, Sendable {
    /// What came of it.
    public enum Outcome: String, Hashable, Sendable {
        /// It is there and does what it should.
        case works
        /// It is not there, or does not do what it should.
        case missing
        /// It could not be tried, for want of something before it.
        case untried
    }

    /// What was tried, in a word or two.
    public let name: String
    /// What came of it.
    public let outcome: Outcome
    /// What was found, as a clause.
    public let detail: String
    /// What to do about it; only for what is missing.
    public let remedy: String?
    /// Whether a sandbox can do without.
    public let isOptional: Bool

    /// A finding from its parts.
    public init(_ name: String, _ outcome: Outcome, _ detail: String, remedy: String? = nil, isOptional: Bool = false) {
        self.name = name
        self.outcome = outcome
        self.detail = detail
        self.remedy = remedy
        self.isOptional = isOptional
    }

    /// Whether it stands in the way.
    public var isObstacle: Bool { outcome != .works && !isOptional }
}
