/// The type of a resource record or question (RFC 1035 3.2.2 and the IANA registry). Any number is a type; the ones that
/// mean something here have names.
public struct DNSRecordType: RawRepresentable, Hashable, Sendable {
    /// The number on the wire.
    public let rawValue: UInt16

    /// A type from its number.
    public init(rawValue: UInt16) { self.rawValue = rawValue }

    /// An IPv4 address, RFC 1035.
    public static let a = DNSRecordType(rawValue: 1)
    /// A zone's name server, RFC 1035.
    public static let ns = DNSRecordType(rawValue: 2)
    /// The canonical name of an alias, RFC 1035.
    public static let cname = DNSRecordType(rawValue: 5)
    /// The start of a zone, RFC 1035.
    public static let soa = DNSRecordType(rawValue: 6)
    /// A pointer to another name, RFC 1035.
    public static let ptr = DNSRecordType(rawValue: 12)
    /// A mail exchange, RFC 1035.
    public static let mx = DNSRecordType(rawValue: 15)
    /// Text, RFC 1035.
    public static let txt = DNSRecordType(rawValue: 16)
    /// An IPv6 address, RFC 3596.
    public static let aaaa = DNSRecordType(rawValue: 28)
    /// The location of a service, RFC 2782.
    public static let srv = DNSRecordType(rawValue: 33)
    /// A naming authority pointer, RFC 3403.
    public static let naptr = DNSRecordType(rawValue: 35)
    /// The canonical name of a whole subtree, RFC 6672.
    public static let dname = DNSRecordType(rawValue: 39)
    /// The EDNS pseudo-record, RFC 6891.
    public static let opt = DNSRecordType(rawValue: 41)
    /// A delegation signer, RFC 4034.
    public static let ds = DNSRecordType(rawValue: 43)
    /// A signature over a record set, RFC 4034.
    public static let rrsig = DNSRecordType(rawValue: 46)
    /// A zone's public key, RFC 4034.
    public static let dnskey = DNSRecordType(rawValue: 48)
    /// A TLS certificate association, RFC 6698.
    public static let tlsa = DNSRecordType(rawValue: 52)
    /// A service binding, RFC 9460.
    public static let svcb = DNSRecordType(rawValue: 64)
    /// A service binding for HTTPS, RFC 9460.
    public static let https = DNSRecordType(rawValue: 65)
    /// Every type at once, RFC 8482; never answered.
    public static let any = DNSRecordType(rawValue: 255)
    /// Which authorities may issue certificates, RFC 8659.
    public static let caa = DNSRecordType(rawValue: 257)

    /// The class `IN` (RFC 1035 3.2.4), the only one that is answered.
    public static let internetClass: UInt16 = 1
}

extension DNSRecordType: CustomStringConvertible {
    /// The mnemonic where there is a name here, else `TYPE99` as RFC 3597 5 writes it.
    public var description: String {
        switch self {
        case .a: "A"
        case .ns: "NS"
        case .cname: "CNAME"
        case .soa: "SOA"
        case .ptr: "PTR"
        case .mx: "MX"
        case .txt: "TXT"
        case .aaaa: "AAAA"
        case .srv: "SRV"
        case .naptr: "NAPTR"
        case .dname: "DNAME"
        case .opt: "OPT"
        case .ds: "DS"
        case .rrsig: "RRSIG"
        case .dnskey: "DNSKEY"
        case .tlsa: "TLSA"
        case .svcb: "SVCB"
        case .https: "HTTPS"
        case .any: "ANY"
        case .caa: "CAA"
        default: "TYPE\(rawValue)"
        }
    }
}

/// How a query ended (RFC 1035 4.1.1); values above 15 need EDNS (RFC 6891 6.1.3).
public struct DNSResponseCode: RawRepresentable, Hashable, Sendable {
    /// The number, 0...4095.
    public let rawValue: UInt16

    /// A code from its number.
    public init(rawValue: UInt16) { self.rawValue = rawValue & 0xfff }

    /// NOERROR.
    public static let noError = DNSResponseCode(rawValue: 0)
    /// FORMERR: the query breaks its format.
    public static let formatError = DNSResponseCode(rawValue: 1)
    /// SERVFAIL: the answer could not be had.
    public static let serverFailure = DNSResponseCode(rawValue: 2)
    /// NXDOMAIN: neither the name nor anything below it exists (RFC 8020).
    public static let nameError = DNSResponseCode(rawValue: 3)
    /// NOTIMP: the operation is not one of ours.
    public static let notImplemented = DNSResponseCode(rawValue: 4)
    /// REFUSED: not answered by policy.
    public static let refused = DNSResponseCode(rawValue: 5)
    /// BADVERS: an EDNS version above 0 (RFC 6891 9).
    public static let badVersion = DNSResponseCode(rawValue: 16)
}

/// Why a query was not answered as it was asked, for a person to read (RFC 8914).
public struct DNSExtendedError: Hashable, Sendable {
    /// The INFO-CODE of the IANA registry.
    public let code: UInt16
    /// The EXTRA-TEXT, UTF-8.
    public let text: String

    /// An extended error from its parts.
    public init(code: UInt16, text: String = "") {
        self.code = code
        self.text = text
    }

    /// 15: an internal policy of the operator refuses the name (RFC 8914 4.16).
    public static func blocked(_ text: String = "") -> DNSExtendedError { DNSExtendedError(code: 15, text: text) }
    /// 23: no upstream server could be reached (RFC 8914 4.24).
    public static let networkError = DNSExtendedError(code: 23)
}
