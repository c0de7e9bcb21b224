public import NetPrimitives

extension IPAddress {
    /// The address that a name of the reverse tree stands for: `7.2.0.192.in-addr.arpa` (RFC 1035 3.5), or 32 nibbles
    /// below `ip6.arpa` (RFC 3596 2.5). `nil` for any other name.
    public init?(reverseName name: DomainName) {
        let labels = name.labels
        guard labels.count > 2, labels[labels.count - 1].elementsEqual("arpa".utf8) else { return nil }
        let zone = labels[labels.count - 2]
        let parts = labels.dropLast(2)
        if zone.elementsEqual("in-addr".utf8) {
            guard parts.count == 4 else { return nil }
            self.init(ascii: Array(parts.reversed().joined(separator: [UInt8(ascii: ".")])))
        } else if zone.elementsEqual("ip6".utf8) {
            guard parts.count == 32 else { return nil }
            var value: UInt128 = 0
            for part in parts.reversed() {
                guard part.count == 1, let digit = part.first,
                    let nibble = UInt8(String(UnicodeScalar(digit)), radix: 16)
                else { return nil }
                value = value << 4 | UInt128(nibble)
            }
            self.init(v6: value)
        } else {
            return nil
        }
    }
}

extension DomainName {
    /// Whether the name lies in the reverse tree of addresses.
    var isReverse: Bool {
        let labels = labels
        guard labels.count >= 2, labels[labels.count - 1].elementsEqual("arpa".utf8) else { return false }
        let zone = labels[labels.count - 2]
        return zone.elementsEqual("in-addr".utf8) || zone.elementsEqual("ip6".utf8)
    }
}
