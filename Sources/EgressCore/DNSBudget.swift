public import EgressPolicy
public import NetPrimitives

/// How many distinct names a sandbox may have resolved below one wildcard rule: labels below an allowed wildcard carry
/// data to whoever serves the zone. Counted per rule and minute; asking for the same name again costs nothing.
public struct DNSBudget {
    /// The bounds per rule and minute.
    public struct Limits: Hashable, Sendable {
        /// The most distinct names.
        public var maximumNames = 200
        /// The most bytes of distinct names.
        public var maximumBytes = 20_000

        /// The defaults.
        public init() {}
    }

    private struct Minute {
        var start: MonotonicTime
        var names: Set<DomainName> = []
        var byteCount = 0
    }

    /// The length of a window in seconds.
    private static let windowSeconds: UInt64 = 60

    /// The bounds per rule and minute.
    public let limits: Limits
    /// By target: a rule that moves within its list keeps what was spent.
    private var minutes: [Target: Minute] = [:]

    /// A budget of which nothing is spent.
    public init(limits: Limits = Limits()) {
        self.limits = limits
    }

    /// Spends one query for `name`, which `rule` allows; `false` when there is not enough left, and nothing is spent.
    public mutating func spend(_ name: DomainName, below rule: RuleReference, at now: MonotonicTime) -> Bool {
        var minute = minutes[rule.target] ?? Minute(start: now)
        if now.seconds(since: minute.start) >= Self.windowSeconds {
            removeExpired(at: now)
            minute = Minute(start: now)
        }
        // Out of the dictionary while it changes: its set is then changed in place.
        minutes[rule.target] = nil
        defer { minutes[rule.target] = minute }
        if minute.names.contains(name) { return true }
        guard minute.names.count < limits.maximumNames,
            minute.byteCount + name.bytes.count <= limits.maximumBytes
        else { return false }
        minute.names.insert(name)
        minute.byteCount += name.bytes.count
        return true
    }

    /// Forgets the minutes that are over.
    public mutating func removeExpired(at now: MonotonicTime) {
        minutes = minutes.filter { now.seconds(since: $0.value.start) < Self.windowSeconds }
    }
}
