public import NetPrimitives
public import WireFormat

/// Answers kept for as long as their TTLs allow, within bounds; the least recently used makes room. What is kept is what
/// upstream said: policy is asked again at every query, before and after looking here.
public struct DNSCache {
    /// What an answer is kept by.
    public struct Key: Hashable, Sendable {
        /// The name asked for.
        public let name: DomainName
        /// The type asked for.
        public let type: DNSRecordType
        /// Whether signatures were asked for.
        public let isDNSSECOK: Bool

        /// A key from its parts.
        public init(_ name: DomainName, _ type: DNSRecordType, isDNSSECOK: Bool = false) {
            self.name = name
            self.type = type
            self.isDNSSECOK = isDNSSECOK
        }

        /// The small ones in one piece, and before the name: behind bytes of any number each would cost as much as they do.
        public func hash(into hasher: inout Hasher) {
            hasher.combine(UInt64(type.rawValue) << 1 | (isDNSSECOK ? 1 : 0))
            hasher.combine(name)
        }
    }

    /// Bounds.
    public struct Limits: Hashable, Sendable {
        /// The most answers.
        public var maximumEntries = 4_096
        /// The most memory, roughly, in bytes.
        public var maximumBytes = 4 * 1_024 * 1_024

        /// The defaults.
        public init() {}
    }

    private struct Entry {
        var key: Key
        var answer: DNSAnswer
        var cost: Int
        var storedAt: MonotonicTime
    }

    /// Neighbours in the order of use; ``none`` at the ends. Kept beside the entries, which are costly to copy.
    private struct Link {
        var newer = none
        var older = none
    }

    private static let none = -1

    /// Bounds.
    public let limits: Limits
    /// Roughly how many bytes are in use.
    public private(set) var byteCount = 0
    private var slots: [Key: Int] = [:]
    /// Freed slots hold `nil` and stand in `free`.
    private var entries: [Entry?] = []
    private var links: [Link] = []
    private var free: [Int] = []
    private var newest = none
    private var oldest = none

    /// An empty cache.
    public init(limits: Limits = Limits()) {
        self.limits = limits
    }

    /// How many answers are kept.
    public var count: Int { slots.count }
}

extension DNSCache {
    /// An answer that was kept.
    public struct Hit: Hashable, Sendable {
        /// The answer, with the TTLs that are left.
        public let answer: DNSAnswer
        /// When the TTLs count down next.
        public let isSameUntil: MonotonicTime
    }

    /// The answer kept for `key`, with the TTLs that are left at `now`.
    public mutating func answer(for key: Key, at now: MonotonicTime) -> DNSAnswer? {
        hit(for: key, at: now)?.answer
    }

    /// The answer kept for `key`, as it is at `now`.
    public mutating func hit(for key: Key, at now: MonotonicTime) -> Hit? {
        guard let slot = slots[key], let entry = entries[slot] else { return nil }
        let age = now.seconds(since: entry.storedAt)
        guard age < UInt64(entry.answer.ttl) else {
            remove(slot)
            return nil
        }
        unlink(slot)
        linkAsNewest(slot)
        return Hit(
            answer: entry.answer.aged(bySeconds: age),
            isSameUntil: entry.storedAt.advanced(bySeconds: age + 1)
        )
    }

    /// Keeps `answer`, instead of what was kept for `key`. An answer with a TTL of 0 is not kept, nor one that would
    /// take more than a sixteenth of the room.
    public mutating func store(_ answer: DNSAnswer, for key: Key, at now: MonotonicTime) {
        if let slot = slots[key] { remove(slot) }
        let cost = answer.cost + 2 * key.name.bytes.count + 160
        guard answer.ttl > 0, cost <= limits.maximumBytes / 16, limits.maximumEntries > 0 else { return }
        while slots.count >= limits.maximumEntries || byteCount + cost > limits.maximumBytes, oldest != Self.none {
            remove(oldest)
        }
        let entry = Entry(key: key, answer: answer, cost: cost, storedAt: now)
        let slot: Int
        if let freed = free.popLast() {
            slot = freed
            entries[slot] = entry
        } else {
            slot = entries.count
            entries.append(entry)
            links.append(Link())
        }
        slots[key] = slot
        byteCount += cost
        linkAsNewest(slot)
    }

    /// Forgets everything.
    public mutating func removeAll() {
        self = DNSCache(limits: limits)
    }
}

// MARK: - The order of use

extension DNSCache {
    private mutating func remove(_ slot: Int) {
        guard let entry = entries[slot] else { return }
        unlink(slot)
        slots[entry.key] = nil
        byteCount -= entry.cost
        entries[slot] = nil
        free.append(slot)
    }

    private mutating func unlink(_ slot: Int) {
        let link = links[slot]
        if link.newer == Self.none { newest = link.older } else { links[link.newer].older = link.older }
        if link.older == Self.none { oldest = link.newer } else { links[link.older].newer = link.newer }
    }

    private mutating func linkAsNewest(_ slot: Int) {
        links[slot] = Link(newer: Self.none, older: newest)
        if newest == Self.none { oldest = slot } else { links[newest].newer = slot }
        newest = slot
    }
}
