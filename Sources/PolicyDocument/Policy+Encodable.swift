public import EgressPolicy
import NetPrimitives

/// Policies as parts of answers, in the form that ``PolicyDocument`` reads.
extension Policy: Encodable {
    private enum Key: CodingKey { case defaultAction, mode, egress, setup }
    private enum SetupKey: CodingKey { case expiresAt, egress }

    /// `mode` is written where it is not `enforce`.
    public func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: Key.self)
        try container.encode(defaultAction.rawValue, forKey: .defaultAction)
        if mode != .enforce { try container.encode(mode.rawValue, forKey: .mode) }
        try container.encode(rules, forKey: .egress)
        guard let setup else { return }
        var phase = container.nestedContainer(keyedBy: SetupKey.self, forKey: .setup)
        try phase.encode(InternetTime.text(of: setup.endsAt), forKey: .expiresAt)
        try phase.encode(setup.rules, forKey: .egress)
    }
}

extension Rule: Encodable {
    private enum Key: CodingKey { case action, target, ports, `protocol`, expiresAt, comment }

    /// What a rule does not say is absent.
    public func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: Key.self)
        try container.encode(action.rawValue, forKey: .action)
        try container.encode("\(target)", forKey: .target)
        if !ports.isEmpty {
            var list = container.nestedUnkeyedContainer(forKey: .ports)
            for range in ports {
                if range.lower == range.upper { try list.encode(range.lower) } else { try list.encode("\(range)") }
            }
        }
        if let transport {
            try container.encode("\(transport)", forKey: .protocol)
        } else if statesAnyTransport {
            try container.encode("any", forKey: .protocol)
        }
        if let expiresAt { try container.encode(InternetTime.text(of: expiresAt), forKey: .expiresAt) }
        if let comment { try container.encode(comment, forKey: .comment) }
    }
}
