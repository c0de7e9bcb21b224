import Glibc
import NetPrimitives

/// The rules about names, found by a name.
///
/// A name has at most 127 labels, so at most 127 names stand at or above it; each is one hash look-up. Patterns
/// (`api-*.example.com`) stand under their parent by prefix, then by suffix: a label has at most 64 prefixes, and only
/// below one that occurs its suffixes are looked up. None of this grows with the number of rules.
struct NameIndex: Sendable {
    /// How a rule speaks of a name.
    enum Kind {
        case exact
        case wildcard
    }

    /// Bytes hashed and compared as a whole, without a copy of what they are cut from.
    private struct Key: Hashable, Sendable {
        let bytes: ArraySlice<UInt8>

        func hash(into hasher: inout Hasher) {
            bytes.withUnsafeBytes { hasher.combine(bytes: $0) }
        }

        /// With one call, where slices compare byte after byte.
        static func == (left: Key, right: Key) -> Bool {
            left.bytes.withUnsafeBytes { left in
                right.bytes.withUnsafeBytes { right in
                    guard left.count == right.count else { return false }
                    guard let first = left.baseAddress, let second = right.baseAddress else { return true }
                    return memcmp(first, second, left.count) == 0
                }
            }
        }
    }

    private struct Node: Sendable {
        var exact = RuleBucket()
        var below = RuleBucket()
        var patterns: [Key: [Key: RuleBucket]] = [:]
        /// The latest expiry of an allow rule about names below this one; `.min` when there is none.
        var allowsBelowUntil = Int64.min

        /// Enters a rule about names below this one as `body` does; whether it allows what was not allowed before.
        mutating func enter(_ rule: CompiledRule, _ body: (inout Node) -> Void) -> Bool {
            body(&self)
            return noteAllowance(rule)
        }

        /// Notes that `rule` speaks of names below this one; whether that is news.
        mutating func noteAllowance(_ rule: CompiledRule) -> Bool {
            guard rule.action == .allow, allowsBelowUntil < rule.expiry else { return false }
            allowsBelowUntil = rule.expiry
            return true
        }

        mutating func freeze(_ rules: [CompiledRule]) {
            exact.freeze(rules)
            below.freeze(rules)
            for prefix in patterns.keys {
                for suffix in patterns[prefix]!.keys {
                    patterns[prefix]![suffix]!.freeze(rules)
                }
            }
        }
    }

    /// In the order in which their names were first spoken of.
    private var nodes: [Node] = []
    /// Where the node of a name is. A dictionary of nodes would hand out copies of them, which cost more than the look-up.
    private var places: [Key: Int32] = [:]

    /// An index with room for about so many names.
    init(capacity: Int = 0) {
        nodes.reserveCapacity(capacity)
        places.reserveCapacity(capacity)
    }

    /// Where the node of a name is, which is made if there is none.
    private mutating func place(of name: ArraySlice<UInt8>) -> Int {
        // One look-up, whether it is there or not.
        func known(_ place: inout Int32) -> Int32 { place }
        let count = Int32(nodes.count)
        let place = known(&places[Key(bytes: name), default: count])
        if place == count { nodes.append(Node()) }
        return Int(place)
    }

    /// Enters a rule; positions must rise. A target of addresses is none of this index's business.
    mutating func insert(_ target: Target, _ position: Int32, _ rule: CompiledRule) {
        switch target {
        case .name(let name):
            nodes[place(of: name.bytes[...])].exact.append(position)
            noteAllowance(above: name.bytes, 0, rule)
        case .subdomains(let parent):
            enter(below: parent, rule) { $0.below.append(position) }
        case .label(let prefix, let suffix, let parent):
            let (prefix, suffix) = (Key(bytes: prefix[...]), Key(bytes: suffix[...]))
            enter(below: parent, rule) {
                $0.patterns[prefix, default: [:]][suffix, default: RuleBucket()].append(position)
            }
        case .addresses:
            break
        }
    }

    /// Enters a rule about names below `name`, with one look-up for it and for what it allows.
    private mutating func enter(below name: DomainName, _ rule: CompiledRule, _ body: (inout Node) -> Void) {
        let isNews = nodes[place(of: name.bytes[...])].enter(rule, body)
        if isNews { noteAllowance(above: name.bytes, 0, rule) }
    }

    private mutating func noteAllowance(above bytes: [UInt8], _ start: Int, _ rule: CompiledRule) {
        guard rule.action == .allow else { return }
        var next = Self.nextLabel(bytes, start)
        while let start = next {
            // Whatever stands above a name that was noted has been noted too.
            guard nodes[place(of: bytes[start...])].noteAllowance(rule) else { return }
            next = Self.nextLabel(bytes, start)
        }
    }

    /// To be called once, when all rules are in.
    mutating func freeze(_ rules: [CompiledRule]) {
        for place in nodes.indices { nodes[place].freeze(rules) }
    }

    /// Whether an allow rule that has not expired speaks of a name below `name`.
    func allowsSomethingBelow(_ name: DomainName, at time: Int64) -> Bool {
        guard let place = place(ofKnown: name.bytes[...]) else { return false }
        return nodes[place].allowsBelowUntil > time
    }

    /// Calls `body` with the rules of every target that matches `name`.
    @inline(__always)
    func forEach(matching name: DomainName, work: inout Int, _ body: (RuleBucket, Kind) -> Void) {
        let bytes = name.bytes
        work += 1
        if let place = place(ofKnown: bytes[...]), !nodes[place].exact.positions.isEmpty {
            body(nodes[place].exact, .exact)
        }
        guard var start = Self.nextLabel(bytes, 0) else { return }
        let label = bytes[..<(start - 1)]
        var isParent = true
        while true {
            work += 1
            if let place = place(ofKnown: bytes[start...]) {
                if !nodes[place].below.positions.isEmpty { body(nodes[place].below, .wildcard) }
                if isParent && !nodes[place].patterns.isEmpty {
                    Self.forEachPattern(in: nodes[place].patterns, matching: label, work: &work) { body($0, .wildcard) }
                }
            }
            isParent = false
            guard let next = Self.nextLabel(bytes, start) else { return }
            start = next
        }
    }

    /// Calls `body` with the rules of every wildcard that matches all names right below `name`.
    func forEach(matchingAllBelow name: DomainName, _ body: (RuleBucket) -> Void) {
        var start: Int? = 0
        while let from = start {
            if let place = place(ofKnown: name.bytes[from...]), !nodes[place].below.positions.isEmpty {
                body(nodes[place].below)
            }
            start = Self.nextLabel(name.bytes, from)
        }
    }

    /// Where the node of a name is, if there is one.
    @inline(__always)
    private func place(ofKnown name: ArraySlice<UInt8>) -> Int? {
        places[Key(bytes: name)].map(Int.init)
    }

    @inline(__always)
    private static func forEachPattern(
        in patterns: [Key: [Key: RuleBucket]],
        matching label: ArraySlice<UInt8>,
        work: inout Int,
        _ body: (RuleBucket) -> Void
    ) {
        for end in label.startIndex...label.endIndex {
            work += 1
            guard let suffixes = patterns[Key(bytes: label[..<end])] else { continue }
            for start in end...label.endIndex {
                work += 1
                if let bucket = suffixes[Key(bytes: label[start...])] { body(bucket) }
            }
        }
    }

    /// Where the label after the one at `start` begins.
    @inline(__always)
    private static func nextLabel(_ bytes: [UInt8], _ start: Int) -> Int? {
        guard let dot = bytes[start...].firstIndex(of: UInt8(ascii: ".")) else { return nil }
        return dot + 1
    }
}
