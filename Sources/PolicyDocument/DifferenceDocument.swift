public import EgressPolicy

/// The difference between two policies as programs are told it: by `policy diff --json` and over the API.
///
///     {"opened": ["tcp 443 a.example"], "closed": [], "stopsAtLock": ["tcp 443 b.example"]}
public struct DifferenceDocument: Hashable, Sendable, Encodable {
    /// What becomes reachable.
    public let opened: [String]
    /// What stops being reachable.
    public let closed: [String]
    /// What of the new policy stops with the lock; `nil` where it has no set-up phase.
    public let stopsAtLock: [String]?

    /// The document of a difference to the policy `new`.
    public init(_ difference: PhasedDifference, to new: Policy) {
        opened = difference.opened.map(\.description)
        closed = difference.closed.map(\.description)
        stopsAtLock = new.setup.map { _ in difference.stopsAtLock.map(\.description) }
    }
}
