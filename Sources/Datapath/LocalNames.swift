public import NetPrimitives
public import UpstreamDNS

/// Names that mean something in one network alone, and who is asked of them there: in lower case, as Docker's resolver takes
/// the names of its networks for others in another. Nobody else can answer in its place, so nothing is lost by it.
public struct LocalNames {
    /// Who is asked.
    public let resolver: UpstreamResolver
    /// Names that are asked of it besides those of one label, each with all below it.
    public let domains: [DomainName]

    /// Names of one label, and `domains` with what is below them.
    public init(resolver: UpstreamResolver, domains: [DomainName] = []) {
        self.resolver = resolver
        self.domains = domains
    }

    /// Whether `name` is one of them.
    public func contains(_ name: DomainName) -> Bool {
        name.hasOneLabel || domains.contains { name == $0 || name.isBelow($0) }
    }
}
