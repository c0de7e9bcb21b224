import NetPrimitives

/// The (port, protocol) pairs, all or those of a rule, that no rule has taken yet: what tells whether *some* connection could be
/// allowed, and whether anything is left for a rule to decide.
struct PortSpace {
    // One bit a port; made when the first rule takes only a part, which few policies have.
    private var tcp: [UInt64]?
    private var udp: [UInt64]?

    /// Everything.
    init() {}

    /// What `rule` covers.
    init(of rule: CompiledRule) {
        tcp = rule.coversTCP ? Self.bits(of: rule.ports) : Self.none
        udp = rule.coversUDP ? Self.bits(of: rule.ports) : Self.none
    }

    private static let full: [UInt64] = [~1] + Array(repeating: ~0, count: 1023)  // there is no port 0
    private static let none = [UInt64](repeating: 0, count: 1024)

    /// Whether nothing is left.
    var isEmpty: Bool { !hasTCP && !(udp ?? Self.full).contains { $0 != 0 } }

    /// Whether a TCP port is left.
    var hasTCP: Bool { (tcp ?? Self.full).contains { $0 != 0 } }

    /// Whether something is left of what `rule` covers, over `transport` when one is named.
    func intersects(_ rule: CompiledRule, over transport: TransportProtocol? = nil) -> Bool {
        transport != .udp && rule.coversTCP && Self.intersects(tcp, rule.ports)
            || transport != .tcp && rule.coversUDP && Self.intersects(udp, rule.ports)
    }

    /// Takes away what `rule` covers.
    mutating func subtract(_ rule: CompiledRule) {
        if rule.coversTCP { Self.subtract(&tcp, rule.ports) }
        if rule.coversUDP { Self.subtract(&udp, rule.ports) }
    }

    /// The UDP ports left of what `rule` covers.
    func udpPorts(of rule: CompiledRule) -> [PortRange] {
        guard rule.coversUDP else { return [] }
        let ranges = rule.ports.isEmpty ? [PortRange.all] : rule.ports
        guard let udp else { return ranges }
        var found: [PortRange] = []
        for range in ranges {
            for port in range.lower...range.upper where udp[Int(port >> 6)] & (1 << UInt64(port & 63)) != 0 {
                if let last = found.last, last.upper &+ 1 == port {
                    found[found.count - 1] = PortRange(last.lower, port)!
                } else {
                    found.append(PortRange(port)!)
                }
            }
        }
        return found
    }

    private static func intersects(_ bits: [UInt64]?, _ ports: [PortRange]) -> Bool {
        guard let bits else { return true }
        guard !ports.isEmpty else { return bits.contains { $0 != 0 } }
        return ports.contains { range in
            words(range).contains { bits[$0] & mask($0, range) != 0 }
        }
    }

    private static func subtract(_ bits: inout [UInt64]?, _ ports: [PortRange]) {
        guard !ports.isEmpty else {
            bits = none
            return
        }
        if bits == nil { bits = full }
        for range in ports {
            for word in words(range) { bits![word] &= ~mask(word, range) }
        }
    }

    /// `nil` for all of them.
    private static func bits(of ports: [PortRange]) -> [UInt64]? {
        guard !ports.isEmpty else { return nil }
        var bits = none
        for range in ports {
            for word in words(range) { bits[word] |= mask(word, range) }
        }
        return bits
    }

    private static func words(_ range: PortRange) -> ClosedRange<Int> { Int(range.lower) >> 6...Int(range.upper) >> 6 }

    private static func mask(_ word: Int, _ range: PortRange) -> UInt64 {
        let low = max(Int(range.lower) - word << 6, 0)
        let high = min(Int(range.upper) - word << 6, 63)
        return (~0 << UInt64(low)) & (~0 >> UInt64(63 - high))
    }
}
