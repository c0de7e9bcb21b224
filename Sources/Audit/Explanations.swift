public import EgressPolicy

extension RuleReference {
    /// Where the rule stands and what it says: `egress[3] deny *.example`.
    public var place: String {
        "\(source.listName ?? "egress")[\(index)] \(action.rawValue) \(target)"
    }
}

extension Reason {
    /// The reason in a few words, for a table.
    public var phrase: String {
        switch self {
        case .rule: "refused by a rule"
        case .default: "no rule allows it"
        case .guardRange: "a guarded address range"
        case .nameAddressMismatch: "not an address of this name"
        case .noSNI: "TLS without a server name"
        case .ech: "a hidden server name"
        case .malformedName: "not a host name"
        case .malformedHello: "not well-formed TLS or DNS"
        case .malformedHTTP: "not well-formed HTTP"
        case .malformedSOCKS: "not well-formed SOCKS"
        case .unsupportedSOCKS: "SOCKS, but not a SOCKS5 CONNECT"
        case .opaqueOnWebPort: "neither TLS nor HTTP"
        case .deadline: "nothing to judge in time"
        case .dnsBudget: "too many names below a wildcard"
        case .expiredRule: "its rule has expired"
        case .paused: "the sandbox is paused"
        case .unresolvable: "the name has no address"
        case .upstreamFailed: "no answer from outside"
        case .connectionLimit: "too many connections at once"
        case .queryLimit: "too many queries at once"
        case .clientLimit: "too many TCP clients of DNS"
        case .pinLimit: "too many addresses pinned"
        case .flowLimit: "too many datagram flows"
        case .askDenied: "somebody was asked and said no"
        case .askDeadline: "somebody was asked and did not answer"
        case .askLimit: "too many questions to ask"
        }
    }

    /// Why no rule would help, or should, and what can be done instead; `nil` where a rule helps.
    public var advice: String? {
        switch self {
        case .default, .rule, .askDenied, .askDeadline, .askLimit: nil
        case .guardRange:
            "private, link-local and metadata addresses open only to an address rule inside that range; write one "
                + "only for a service that untrusted code may use"
        case .nameAddressMismatch:
            "the connection named a host that was not resolved to this address; let the program use the system's "
                + "resolver, without /etc/hosts entries or a resolver of its own"
        case .noSNI:
            "without a server name only an address rule could allow it, along with everything else at that address; "
                + "let the client send SNI"
        case .ech: "the real server name is encrypted, so no name rule can judge it; turn ECH off in the client"
        case .malformedName, .malformedHello, .malformedHTTP, .malformedSOCKS:
            "it can be read in more than one way, or in none; no rule opens that"
        case .unsupportedSOCKS:
            "the proxy knows SOCKS5 with CONNECT and without authentication: socks5h://, not socks4:// and no UDP"
        case .opaqueOnWebPort: "ports 80 and 443 carry only TLS and HTTP; no rule opens them for anything else"
        case .deadline: "the client sent nothing in time that shows where it goes"
        case .dnsBudget: "so many distinct names look like data in queries; name the hosts in rules of their own"
        case .expiredRule: "renew its expiresAt, or remove it"
        case .paused: "resume the sandbox"
        case .unresolvable, .upstreamFailed: "the policy is not the cause"
        case .connectionLimit: "a bound on what one sandbox may take: maximumConnections"
        case .queryLimit: "a bound on what one sandbox may take: maximumQueries"
        case .clientLimit: "a bound on what one sandbox may take: maximumDNSClients"
        case .pinLimit: "a bound on what one sandbox may take: maximumPins"
        case .flowLimit: "a bound on what one sandbox may take: maximumDatagramFlows and datagramFlowsPerSecond"
        }
    }
}
