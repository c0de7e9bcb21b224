public import EgressPolicy
import NetPrimitives

/// A host and port that a tool is configured to use, and where that is written.
public struct DetectedHost: Hashable, Sendable {
    /// The name or address.
    public var target: Target
    /// The TCP port.
    public var port: UInt16
    /// Who uses it and what says so, for people: `pip: index-url of /etc/pip.conf`.
    public var sources: [String]

    /// A host from its parts.
    public init(_ target: Target, port: UInt16, sources: [String]) {
        self.target = target
        self.port = port
        self.sources = sources
    }

    /// The rule that allows it, and no more.
    public var rule: Rule {
        Rule(
            .allow,
            target,
            ports: PortRange(port).map { [$0] } ?? [],
            transport: .tcp,
            comment: sources.joined(separator: "; ")
        )
    }
}

/// What a tool is configured to use.
public struct Detection: Hashable, Sendable {
    /// The hosts, in the order found, each once.
    public private(set) var hosts: [DetectedHost] = []
    /// What is good to know and cannot be said as a rule, a clause each.
    public private(set) var notes: [String] = []

    /// Nothing yet.
    public init() {}

    /// Adds a host; one that is there already gets another source.
    public mutating func add(_ target: Target, port: UInt16, source: String) {
        guard let index = hosts.firstIndex(where: { $0.target == target && $0.port == port }) else {
            hosts.append(DetectedHost(target, port: port, sources: [source]))
            return
        }
        if !hosts[index].sources.contains(source) { hosts[index].sources.append(source) }
    }

    /// Adds the host of a URL. A URL of another kind, `file:` say, has none; one that is not understood is noted, without
    /// its text: it may hold a password.
    public mutating func add(url: String, source: String) {
        switch URLAuthority.parse(url) {
        case .host(let authority): add(authority.target, port: authority.port, source: source)
        case .local: break
        case .unknown: note("\(source): not understood, so not allowed")
        }
    }

    /// Adds a note, once.
    public mutating func note(_ text: String) {
        if !notes.contains(text) { notes.append(text) }
    }

    /// Adds what another detection found.
    public mutating func merge(_ other: Detection) {
        for host in other.hosts {
            for source in host.sources { add(host.target, port: host.port, source: source) }
        }
        for text in other.notes { note(text) }
    }
}
