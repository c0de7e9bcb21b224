public import NetPrimitives

/// What one policy lets through and another one does not, as far as rules speak of it: in names, addresses and ports
/// rather than in rules, since rules may move without a difference, and one that stands behind another has no effect.
///
/// Every target of either policy is judged by both, on each range of ports that their rules tell apart. Names are judged
/// as such, without an address: that an address rule takes an address away from a name shows at the address.
public struct PolicyDifference: Hashable, Sendable {
    /// What is judged.
    public enum Subject: Hashable, Sendable {
        /// A name, or the names of a wildcard that no other target speaks of.
        case names(Target)
        /// The names that no target speaks of.
        case otherNames
        /// Addresses, by whatever name.
        case addresses(ClosedRange<IPAddress>)
    }

    /// One subject over one transport.
    public struct Entry: Hashable, Sendable {
        /// What is reached, or is no longer.
        public let subject: Subject
        /// Over what.
        public let transport: TransportProtocol
        /// On which ports. Sorted, disjoint.
        public let ports: [PortRange]
    }

    /// What becomes reachable.
    public private(set) var opened: [Entry] = []
    /// What stops being reachable.
    public private(set) var closed: [Entry] = []

    /// Whether there is no difference.
    public var isEmpty: Bool { opened.isEmpty && closed.isEmpty }

    /// Compares two policies as they are at `time`.
    public init(from old: CompiledPolicy, to new: CompiledPolicy, at time: WallTime) {
        let ranges = Self.portRanges(of: [old, new])
        func compare(_ subject: Subject, name: DomainName?, address: IPAddress?) {
            for transport in TransportProtocol.allCases {
                var (more, less): ([PortRange], [PortRange]) = ([], [])
                for range in ranges {
                    let flow = Flow(name: name, address: address, port: range.lower, transport: transport)
                    switch (old.decide(flow, at: time).action, new.decide(flow, at: time).action) {
                    case (.deny, .allow): more.append(range)
                    case (.allow, .deny): less.append(range)
                    default: continue
                    }
                }
                add(subject, transport, more, to: &opened)
                add(subject, transport, less, to: &closed)
            }
        }
        for target in Self.names(of: [old, new]) {
            compare(.names(target), name: target.sample, address: nil)
        }
        compare(.otherNames, name: Self.unmentioned, address: nil)
        for family in [IPAddress.Family.v4, .v6] {
            AddressRegions.forEach(family, blocks: Self.blocks(of: [old, new], family)) { region, _ in
                guard let first = IPAddress(family: family, value: region.lowerBound),
                    let last = IPAddress(family: family, value: region.upperBound)
                else { return }
                compare(.addresses(first...last), name: nil, address: first)
            }
        }
    }

    private func add(
        _ subject: Subject,
        _ transport: TransportProtocol,
        _ ports: [PortRange],
        to entries: inout [Entry]
    ) {
        guard !ports.isEmpty else { return }
        let merged = PortRange.merged(ports)
        // Regions that lie side by side and changed alike are one.
        if case .addresses(let range) = subject,
            let index = entries.lastIndex(where: { $0.transport == transport }),
            case .addresses(let before) = entries[index].subject, entries[index].ports == merged,
            before.upperBound.family == range.lowerBound.family,
            before.upperBound.value + 1 == range.lowerBound.value
        {
            let joined = Subject.addresses(before.lowerBound...range.upperBound)
            entries[index] = Entry(subject: joined, transport: transport, ports: merged)
        } else {
            entries.append(Entry(subject: subject, transport: transport, ports: merged))
        }
    }
}

// MARK: - What to look at

extension PolicyDifference {
    /// Below a top-level domain that no name has (RFC 6761).
    private static let unmentioned = try! DomainName("sandgate-unmentioned.invalid")

    private static func rules(of policies: [CompiledPolicy]) -> [Rule] {
        policies.flatMap { $0.always.deny + $0.always.allow + $0.policy.unphased.rules + $0.always.answers + $0.once }
    }

    /// Targets that are names, in the order of the rules, each once.
    private static func names(of policies: [CompiledPolicy]) -> [Target] {
        var seen: Set<Target> = []
        return rules(of: policies).map(\.target).filter { target in
            if case .addresses = target { return false }
            return seen.insert(target).inserted
        }
    }

    private static func blocks(of policies: [CompiledPolicy], _ family: IPAddress.Family) -> [IPPrefix] {
        var blocks = Set(policies.flatMap { $0.guards.prefixes(family) })
        for case .addresses(let prefix) in rules(of: policies).map(\.target) where prefix.first.family == family {
            blocks.insert(prefix)
        }
        return blocks.sorted { ($0.first.value, $0.length) < ($1.first.value, $1.length) }
    }

    /// All ports, cut where a rule begins or ends: within a range, every port is judged alike.
    private static func portRanges(of policies: [CompiledPolicy]) -> [PortRange] {
        var cuts: Set<UInt16> = [1]
        for range in rules(of: policies).flatMap(\.ports) {
            cuts.insert(range.lower)
            if range.upper < .max { cuts.insert(range.upper + 1) }
        }
        let sorted = cuts.sorted()
        return sorted.indices.map { index in
            PortRange(sorted[index], index + 1 < sorted.count ? sorted[index + 1] - 1 : .max)!
        }
    }
}

extension Target {
    /// A name that it matches and no other target is likely to speak of; `nil` for addresses.
    fileprivate var sample: DomainName? {
        let label = Array("sandgate-unmentioned".utf8)
        switch self {
        case .name(let name): return name
        case .subdomains(let parent):
            // A name that is too long for another label is matched by nothing below it.
            return try? DomainName(ascii: label + [UInt8(ascii: ".")] + parent.bytes)
        case .label(let prefix, let suffix, let parent):
            let filled = prefix + [UInt8(ascii: "0")] + suffix
            return try? DomainName(ascii: filled + [UInt8(ascii: ".")] + parent.bytes)
        case .addresses: return nil
        }
    }
}

extension PolicyDifference.Entry: CustomStringConvertible {
    /// `tcp 443, 8000-8100 *.example.com`.
    public var description: String {
        let place = ports == [.all] ? "any port" : ports.map(\.description).joined(separator: ", ")
        return "\(transport) \(place) \(subject)"
    }
}

extension PolicyDifference.Subject: CustomStringConvertible {
    /// The target, or the addresses as a block where they are one.
    public var description: String {
        switch self {
        case .names(let target): return "\(target)"
        case .otherNames: return "every other name"
        case .addresses(let range):
            if range.lowerBound == range.upperBound { return "\(range.lowerBound)" }
            for length in 0...range.lowerBound.family.bitWidth {
                let prefix = IPPrefix(range.lowerBound, length: length)
                if prefix.first == range.lowerBound, prefix.last == range.upperBound { return "\(prefix)" }
            }
            return "\(range.lowerBound)-\(range.upperBound)"
        }
    }
}
