import NetPrimitives

/// A rule with everything folded in that its place in the policy means. Positions count through `deny.always`,
/// `allow.always` and the policy's rules: the lowest that matches decides.
struct CompiledRule: Sendable {
    let action: RuleAction
    /// Microseconds since the epoch from when on the rule does not exist; `.max` for never.
    let expiry: Int64
    let coversTCP: Bool
    var coversUDP: Bool
    /// Sorted, disjoint; empty means every port.
    let ports: [PortRange]

    /// Folds a rule. A name or wildcard opens UDP only where the rule says so in words, and only on ports that it lists:
    /// datagrams show no name that could be judged, so QUIC passes only where the policy asks for it.
    init(_ rule: Rule, action: RuleAction) {
        self.action = action
        self.expiry = rule.expiresAt?.microseconds ?? .max
        self.ports = PortRange.merged(rule.ports)
        let isAddress = rule.target.isOfAddresses
        self.coversTCP = rule.transport != .udp
        let asksForUDP = (rule.transport == .udp || rule.statesAnyTransport) && !rule.ports.isEmpty
        self.coversUDP = rule.transport != .tcp && (action == .deny || isAddress || asksForUDP)
    }

    var coversEverything: Bool { coversTCP && coversUDP && ports.isEmpty }

    func isLive(at time: Int64) -> Bool { time < expiry }

    func covers(_ port: UInt16, _ transport: TransportProtocol) -> Bool {
        guard transport == .tcp ? coversTCP : coversUDP else { return false }
        if ports.isEmpty { return true }
        var (low, high) = (0, ports.count)
        while low < high {
            let middle = (low + high) / 2
            if ports[middle].upper < port { low = middle + 1 } else { high = middle }
        }
        return low < ports.count && ports[low].contains(port)
    }
}

/// The best match found so far: the lowest positions of a live and of an expired rule.
struct Match {
    var live = Int32.max
    var expired = Int32.max
    /// How many rules and index entries were looked at; what tests hold constant.
    var work = 0
}

/// The rules with one target, in order.
struct RuleBucket: Sendable {
    /// Up to this many rules are looked at one by one.
    static let scanLimit = 8

    private(set) var positions: [Int32] = []
    private var tree: PortTree?

    mutating func append(_ position: Int32) { positions.append(position) }

    /// To be called once, when all rules are in.
    mutating func freeze(_ rules: [CompiledRule]) {
        guard positions.count > Self.scanLimit else { return }
        // What rules before it cover for ever never decides: this bounds a bucket by ports, not by rules.
        var left = PortSpace()
        positions.removeAll { position in
            let rule = rules[Int(position)]
            guard left.intersects(rule) else { return true }
            if rule.expiry == .max { left.subtract(rule) }
            return false
        }
        if positions.count > Self.scanLimit { tree = PortTree(positions, rules) }
    }

    func find(_ flow: Flow, at time: Int64, _ rules: [CompiledRule], _ match: inout Match) {
        if let tree { return tree.find(flow, at: time, &match) }
        for position in positions {
            match.work += 1
            if position > match.live { return }
            let rule = rules[Int(position)]
            guard rule.covers(flow.port, flow.transport) else { continue }
            if rule.isLive(at: time) {
                match.live = position
                return
            }
            match.expired = min(match.expired, position)
        }
    }
}

/// The rules about one block of addresses.
struct BlockRules: Sendable {
    /// All of them.
    private(set) var all = RuleBucket()
    /// Those that deny, also where an earlier one of `all` allows: what keeps guard ranges closed.
    private(set) var denials = RuleBucket()

    mutating func append(_ position: Int32, _ action: RuleAction) {
        all.append(position)
        if action == .deny { denials.append(position) }
    }

    mutating func freeze(_ rules: [CompiledRule]) {
        all.freeze(rules)
        denials.freeze(rules)
    }

    /// What decides whether a guard range is open at an address: the rules of a block that is inside the range, and the
    /// denials of one that is not.
    func bearingOnGuard(_ isInside: Bool) -> RuleBucket { isInside ? all : denials }
}

/// Many rules with one target, found by port: a segment tree over the ports of each protocol, in whose nodes rules
/// stand in order. A rule that expires no later than an earlier one in its node never decides and is left out, so
/// expiries rise along a node and the first live rule is found by bisection. A look-up visits 17 nodes.
struct PortTree: Sendable {
    private struct Entry: Sendable {
        let position: Int32
        let expiry: Int64
    }

    private var nodes: [Int32: [Entry]] = [:]

    init(_ positions: [Int32], _ rules: [CompiledRule]) {
        for position in positions {
            let rule = rules[Int(position)]
            let entry = Entry(position: position, expiry: rule.expiry)
            for range in rule.ports.isEmpty ? [(0, 65535)] : rule.ports.map({ (Int($0.lower), Int($0.upper)) }) {
                if rule.coversTCP { insert(entry, range, .tcp) }
                if rule.coversUDP { insert(entry, range, .udp) }
            }
        }
    }

    private mutating func insert(_ entry: Entry, _ range: (Int, Int), _ transport: TransportProtocol) {
        func add(_ node: Int) {
            let key = Self.key(node, transport)
            if let last = nodes[key]?.last, last.expiry >= entry.expiry { return }
            nodes[key, default: []].append(entry)
        }
        var (low, high) = (range.0 + 65536, range.1 + 65537)
        while low < high {
            if low & 1 == 1 {
                add(low)
                low += 1
            }
            if high & 1 == 1 {
                high -= 1
                add(high)
            }
            low >>= 1
            high >>= 1
        }
    }

    func find(_ flow: Flow, at time: Int64, _ match: inout Match) {
        var node = Int(flow.port) + 65536
        while node > 0 {
            match.work += 1
            if let entries = nodes[Self.key(node, flow.transport)] {
                if entries[0].expiry <= time { match.expired = min(match.expired, entries[0].position) }
                var (low, high) = (0, entries.count)
                while low < high {
                    let middle = (low + high) / 2
                    if entries[middle].expiry <= time { low = middle + 1 } else { high = middle }
                }
                if low < entries.count { match.live = min(match.live, entries[low].position) }
            }
            node >>= 1
        }
    }

    private static func key(_ node: Int, _ transport: TransportProtocol) -> Int32 {
        Int32(node) << 1 | (transport == .tcp ? 0 : 1)
    }
}
