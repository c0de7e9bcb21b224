public import NetPrimitives

/// The ranges that no name, no default and no broad CIDR rule opens: where the node itself, its neighbours and cloud
/// metadata services live. Only a rule about addresses whose prefix lies wholly inside a range opens (a part of) it.
public struct GuardRanges: Sendable {
    /// The ranges that are the same everywhere (IANA special-purpose registries, RFC 6890).
    public static let common: [IPPrefix] = [
        "0.0.0.0/8",  // this network, RFC 791
        "10.0.0.0/8",  // private, RFC 1918
        "100.64.0.0/10",  // carrier-grade NAT, RFC 6598
        "127.0.0.0/8",  // loopback
        "168.63.129.16/32",  // Azure's node services: a public address that leads to the machine's host
        "169.254.0.0/16",  // link-local, RFC 3927; metadata services
        "172.16.0.0/12",  // private
        "192.0.0.0/24",  // protocol assignments, RFC 6890
        "192.168.0.0/16",  // private
        "198.18.0.0/15",  // benchmarks, RFC 2544
        "224.0.0.0/4",  // multicast
        "240.0.0.0/4",  // reserved, and 255.255.255.255
        "::/128", "::1/128",
        "fc00::/7",  // unique local, RFC 4193; metadata services
        "fe80::/10",  // link-local
        "fec0::/10",  // site-local, RFC 3879
        "ff00::/8",  // multicast
    ].map { try! IPPrefix(parsing: $0) }

    /// Ways to write an IPv4 address inside an IPv6 address, where the ranges of one are ranges of the other.
    package static let translations: [IPPrefix] = [
        "::/96",  // IPv4-compatible, RFC 4291 2.5.5.1
        "::ffff:0.0.0.0/96",  // IPv4-mapped, RFC 4291 2.5.5.2
        "::ffff:0:0:0/96",  // SIIT, RFC 2765
        "64:ff9b::/96",  // NAT64, RFC 6052
        "64:ff9b:1::/96",  // NAT64 of local use, RFC 8215
        "2001::/32",  // Teredo server, RFC 4380
        "2002::/16",  // 6to4, RFC 3056
    ].map { try! IPPrefix(parsing: $0) }

    /// The node's own addresses, as far as they are known; empty where there is no node to guard.
    public let nodeAddresses: Set<IPAddress>

    /// The common ranges and the node's own addresses, each a range of its own: `10.0.0.0/8` does not open the node's
    /// `10.0.0.1`.
    public init(nodeAddresses: [IPAddress] = []) {
        self.nodeAddresses = Set(nodeAddresses)
    }

    /// A common range, as numbers.
    private struct Range {
        let first: UInt128
        let last: UInt128
        let length: Int
    }

    // In order, and none inside another: a few comparisons find an address, where a look-up for each prefix length that
    // occurs was a third of every decision.
    private static let common4 = sorted(.v4)
    private static let common6 = sorted(.v6)

    private static func sorted(_ family: IPAddress.Family) -> [Range] {
        common.filter { $0.family == family }
            .map { Range(first: $0.first.value, last: $0.last.value, length: $0.length) }
            .sorted { $0.first < $1.first }
    }

    /// Whether `address` lies in a range, itself or by an IPv4 address inside it.
    public func contains(_ address: IPAddress) -> Bool {
        requiredLength(for: address) > 0
    }

    /// The least prefix length of a rule that opens `address`: that of the smallest range around it; 0 when it lies in
    /// none. The range around an IPv6 address that holds a guarded IPv4 address is the translation of its range.
    func requiredLength(for address: IPAddress) -> Int {
        var length = ownRequiredLength(for: address)
        for (index, inner) in address.embeddedIPv4.enumerated() {
            let innerLength = ownRequiredLength(for: inner)
            if innerLength > 0 { length = max(length, Self.bitsBefore(embedded: index, in: address) + innerLength) }
        }
        return length
    }

    private func ownRequiredLength(for address: IPAddress) -> Int {
        if !nodeAddresses.isEmpty, nodeAddresses.contains(address) { return address.family.bitWidth }
        let ranges = address.family == .v4 ? Self.common4 : Self.common6
        var (low, high) = (0, ranges.count)
        while low < high {
            let middle = (low + high) / 2
            if ranges[middle].last < address.value { low = middle + 1 } else { high = middle }
        }
        return low < ranges.count && ranges[low].first <= address.value ? ranges[low].length : 0
    }

    private static func bitsBefore(embedded index: Int, in address: IPAddress) -> Int {
        if address.value >> 112 == 0x2002 { return 16 }
        // A Teredo address holds its server first, then its client in the low bits.
        return address.value >> 96 == 0x2001_0000 && index == 0 ? 32 : 96
    }

    /// All ranges of a family, IPv6 with the translations of the IPv4 ranges.
    func prefixes(_ family: IPAddress.Family) -> [IPPrefix] {
        let own = own(family)
        guard family == .v6 else { return own }
        let own4 = self.own(.v4)
        return own + Self.translations.flatMap { form in own4.map { Self.translate($0, by: form) } }
    }

    private func own(_ family: IPAddress.Family) -> [IPPrefix] {
        let common = Set(Self.common.filter { $0.family == family })
        let own = Array(common.union(nodeAddresses.filter { $0.family == family }.map(IPPrefix.init(host:))))
        return own.nestingOrder().map { own[$0] }
    }

    /// The block of IPv6 addresses that hold an address of `block` behind the prefix `form`.
    static func translate(_ block: IPPrefix, by form: IPPrefix) -> IPPrefix {
        let shifted = block.address.value << UInt128(96 - form.length)
        return IPPrefix(IPAddress(v6: form.address.value | shifted), length: form.length + block.length)
    }
}
