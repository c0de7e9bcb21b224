public import NetPrimitives

/// What the kernel lets through to the datagram relay to be looked at: never narrower than
/// ``CompiledPolicy/decide(_:at:)`` allows over UDP, and nothing of it opens anything by itself.
public struct DatagramReach: Hashable, Sendable {
    /// The ports that rules about names list: to addresses that are pinned for a name. Sorted, disjoint.
    public var portsByName: [PortRange]
    /// The ports that rules about addresses cover: to ``addresses``. Sorted, disjoint.
    public var portsByAddress: [PortRange]
    /// Where a datagram could be allowed whatever its address was resolved for. Sorted, disjoint, IPv4 first.
    public var addresses: [ClosedRange<IPAddress>]

    /// A reach from its parts; with none, no datagram gets further than the kernel.
    public init(
        portsByName: [PortRange] = [],
        portsByAddress: [PortRange] = [],
        addresses: [ClosedRange<IPAddress>] = []
    ) {
        self.portsByName = portsByName
        self.portsByAddress = portsByAddress
        self.addresses = addresses
    }

    /// Whether the kernel refuses every datagram by itself.
    public var isEmpty: Bool { portsByName.isEmpty && portsByAddress.isEmpty }
}

extension CompiledPolicy {
    /// What datagrams may be looked at under this policy. In report mode all but guard ranges.
    public func datagramReach(at time: WallTime) -> DatagramReach {
        guard policy.mode == .enforce else {
            let addresses = possibleAddresses(over: .udp, at: time)
            return DatagramReach(portsByName: [.all], portsByAddress: [.all], addresses: addresses)
        }
        var (named, addressed): ([PortRange], [PortRange]) = ([], [])
        for (position, rule) in rules.enumerated()
        where rule.action == .allow && rule.coversUDP && rule.isLive(at: time.microseconds) {
            let ports = rule.ports.isEmpty ? [.all] : rule.ports
            if case .addresses = reference(to: Int32(position)).target { addressed += ports } else { named += ports }
        }
        let addresses = addressed.isEmpty ? [] : possibleAddresses(over: .udp, at: time)
        return DatagramReach(
            portsByName: PortRange.merged(named),
            portsByAddress: addresses.isEmpty ? [] : PortRange.merged(addressed),
            addresses: addresses
        )
    }
}
