import EgressPolicy
import NetPrimitives
import PolicyDocument

/// For programs: the policy as an API takes it, and what is known of each rule that was added.
extension SuggestedPolicy: Encodable {
    private enum Key: CodingKey { case networkPolicy, added, omitted, notes, connections, queries }

    /// `networkPolicy`, `added` (a member for each rule behind the base's, in order), `omitted`, `notes`, `connections`,
    /// `queries`.
    public func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: Key.self)
        try container.encode(policy, forKey: .networkPolicy)
        try container.encode(lines, forKey: .added)
        try container.encode(omissions, forKey: .omitted)
        try container.encode(hints, forKey: .notes)
        try container.encode(connectionCount, forKey: .connections)
        try container.encode(queryCount, forKey: .queries)
    }
}

extension SuggestedPolicy.Line: Encodable {
    private enum Key: CodingKey {
        case rule, times, firstSeen, lastSeen, sandboxes, moreSandboxes, programs, bytesUp, bytesDown, remarks, review,
            names
    }

    /// What was observed.
    public func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: Key.self)
        try container.encode(rule, forKey: .rule)
        try container.encode(times, forKey: .times)
        try container.encode(Timestamp.text(of: firstSeen), forKey: .firstSeen)
        try container.encode(Timestamp.text(of: lastSeen), forKey: .lastSeen)
        try container.encode(sandboxes, forKey: .sandboxes)
        if hasMoreSandboxes { try container.encode(true, forKey: .moreSandboxes) }
        try container.encode(programs, forKey: .programs)
        try container.encode(bytesUp, forKey: .bytesUp)
        try container.encode(bytesDown, forKey: .bytesDown)
        try container.encode(remarks, forKey: .remarks)
        try container.encode(review, forKey: .review)
        if !collapsed.isEmpty { try container.encode(collapsed.map(\.description), forKey: .names) }
    }
}

extension SuggestedPolicy.Omission: Encodable {
    private enum Key: CodingKey { case kind, destination, times, reason, rule }

    /// What was asked for.
    public func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: Key.self)
        try container.encode(kind.rawValue, forKey: .kind)
        try container.encode(destination, forKey: .destination)
        try container.encode(times, forKey: .times)
        try container.encode(reason, forKey: .reason)
        try container.encodeIfPresent(rule, forKey: .rule)
    }
}
