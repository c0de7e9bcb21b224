public import NetPrimitives

/// What a rule speaks of.
public enum Target: Hashable, Sendable {
    /// `example.com`: exactly that name.
    case name(DomainName)
    /// `*.example.com`: every name below it at any depth, not the name itself.
    case subdomains(of: DomainName)
    /// `api-*.example.com`: the left-most label starts with `prefix`, ends with `suffix` (not overlapping) and stands
    /// right below `parent`. Both are canonical bytes; at least one is not empty.
    case label(prefix: [UInt8], suffix: [UInt8], parent: DomainName)
    /// `192.0.2.7`, `192.0.2.0/24`, `2001:db8::/32`.
    case addresses(IPPrefix)

    /// Whether it speaks of addresses and not of names.
    public var isOfAddresses: Bool { if case .addresses = self { true } else { false } }
}
