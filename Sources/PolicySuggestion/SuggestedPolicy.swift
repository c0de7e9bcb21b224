public import EgressPolicy
public import NetPrimitives

/// A policy made of what was observed, with what is known of each of its lines and of what it leaves out.
public struct SuggestedPolicy: Sendable {
    /// A rule that was added.
    public struct Line: Sendable {
        /// The rule.
        public internal(set) var rule: Rule
        /// How many connections it stands for; queries, where only the name was asked for.
        public internal(set) var times: UInt64
        /// When it was first asked for.
        public internal(set) var firstSeen: WallTime
        /// When it was last asked for.
        public internal(set) var lastSeen: WallTime
        /// The first few sandboxes that asked for it. Any text.
        public internal(set) var sandboxes: [String]
        /// Whether there were more of them.
        public internal(set) var hasMoreSandboxes: Bool
        /// The programs that those were made for, where that is recorded. Any text.
        public internal(set) var programs: [String]
        /// Bytes that went up on connections that have ended.
        public internal(set) var bytesUp: UInt64
        /// Bytes that came down on them.
        public internal(set) var bytesDown: UInt64
        /// What has to be known of it, such as where its port comes from; clauses.
        public internal(set) var remarks: [String]
        /// Why a person should look at it; clauses.
        public internal(set) var review: [String]
        /// The names that a wildcard was made of.
        public internal(set) var collapsed: [DomainName]
        /// Whether `review` holds something against making it part of a wildcard.
        var isSuspicious = false
    }

    /// Something that was asked for and is not allowed.
    public struct Omission: Hashable, Sendable {
        /// Why.
        public enum Kind: String, Hashable, Sendable {
            /// A rule of the base policy, or one that was in force, denies it.
            case denied
            /// No rule helps, or should.
            case unhelped
            /// It was asked for less often than was wanted.
            case rare
            /// A name was looked up, and no connection followed.
            case lookup
            /// More ports than a program uses.
            case scan
            /// The connection that it would allow has another way.
            case alternative
        }

        /// Why.
        public let kind: Kind
        /// What, for people; printable ASCII.
        public let destination: String
        /// How often.
        public let times: UInt64
        /// Why in words; printable ASCII.
        public let reason: String
        /// The rule that would allow it, where it is for a person to decide.
        public var rule: Rule?
    }

    /// The policy that was built upon, or one that denies everything.
    public let base: Policy
    /// The rules behind those of the base.
    public internal(set) var lines: [Line] = []
    /// What was asked for and is not allowed.
    public internal(set) var omissions: [Omission] = []
    /// Siblings that a wildcard could stand for, and those that none may; sentences.
    public internal(set) var hints: [String] = []
    /// Connections that were looked at.
    public let connectionCount: UInt64
    /// Queries that were looked at.
    public let queryCount: UInt64
    /// The time of the first and the last of them; `nil` when there was none.
    public let span: ClosedRange<WallTime>?

    /// The policy: the base's rules, then those that were added. Always in mode `enforce`.
    public var policy: Policy {
        Policy(defaultAction: base.defaultAction, rules: base.rules + lines.map(\.rule))
    }
}
