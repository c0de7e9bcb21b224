public import EgressCore
import EgressPolicy
import NetPrimitives

/// An event as it stands in the log: with its place and what it stands behind.
public struct AuditRecord: Hashable, Sendable {
    /// Its place: 1 for the first record of a log, without gaps.
    public var sequence: UInt64
    /// What happened.
    public var event: AuditEvent
    /// The digest of what stands before it; `nil` for the first record.
    public var previous: LineDigest?

    /// A record from its parts.
    public init(sequence: UInt64, event: AuditEvent, previous: LineDigest?) {
        self.sequence = sequence
        self.event = event
        self.previous = previous
    }

    /// The longest host that is recorded, in scalars; a DNS name has at most 253.
    static let hostLimit = 512
    /// The longest detail that is recorded, in scalars.
    static let detailLimit = 512
    /// The longest sandbox id that is recorded, in scalars.
    static let sandboxLimit = 256

    /// The record's line without a newline: one JSON object of printable ASCII. Members that the kind of event does
    /// not have are absent; `rule` is `null` where something was judged and no rule decided.
    public var line: [UInt8] {
        var writer = RecordWriter()
        writer.member("seq", number: sequence)
        writer.timestamp("ts") { Timestamp.append(event.time, to: &$0) }
        if !event.sandbox.isEmpty {
            writer.member("sandbox", string: event.sandbox, limit: Self.sandboxLimit)
        }
        writer.member("event", string: event.kind.rawValue)
        if let layer = event.layer { writer.member("layer", string: layer.rawValue) }
        if let verdict = event.verdict { append(verdict, to: &writer) }
        appendDestination(to: &writer)
        if let verdict = event.verdict { append(verdict.rule, to: &writer) }
        if let revision = event.policyRevision { writer.member("policyRevision", number: revision) }
        if let bytesUp = event.bytesUp { writer.member("bytesUp", number: bytesUp) }
        if let bytesDown = event.bytesDown { writer.member("bytesDown", number: bytesDown) }
        if let duration = event.durationMilliseconds { writer.member("durationMs", number: duration) }
        if let count = event.count { writer.member("count", number: count) }
        if let question = event.question { writer.member("question", number: question) }
        if let detail = event.detail { writer.member("detail", string: detail, limit: Self.detailLimit) }
        if let previous {
            writer.member("prev", ascii: previous.hexadecimal)
        } else {
            writer.member("prev", null: ())
        }
        return writer.finish()
    }

    private func append(_ verdict: Verdict, to writer: inout RecordWriter) {
        writer.member("verdict", string: verdict.action.rawValue)
        if verdict.isReportOnly { writer.member("report", bool: true) }
        writer.member("reason", string: verdict.reason.rawValue)
    }

    /// A connection's record has all four members, `null` where something is not known; others have what they have.
    private func appendDestination(to writer: inout RecordWriter) {
        let isConnection = [.connectionAllowed, .connectionDenied, .connectionClosed].contains(event.kind)
        if let host = event.host {
            writer.member("host", string: host, limit: Self.hostLimit)
        } else if isConnection {
            writer.member("host", null: ())
        }
        if let address = event.address {
            writer.member("ip", string: address.description)
        } else if isConnection {
            writer.member("ip", null: ())
        }
        if let port = event.port {
            writer.member("port", number: UInt64(port))
        } else if isConnection {
            writer.member("port", null: ())
        }
        if let ipProtocol = event.ipProtocol {
            writer.member("protocol", string: protocolName(ipProtocol))
        } else if isConnection {
            writer.member("protocol", null: ())
        }
    }

    private func append(_ rule: RuleReference?, to writer: inout RecordWriter) {
        guard let rule else {
            writer.member("rule", null: ())
            return
        }
        writer.member("rule") { object in
            object.member("index", number: UInt64(max(rule.index, 0)))
            object.member("action", string: rule.action.rawValue)
            object.member("target", string: rule.target.description)
            if let source = rule.source.listName { object.member("source", string: source) }
        }
    }
}

extension RuleReference.Source {
    /// The list that the rule stands in, where it is not the policy's `egress`: an operator's file, the set-up phase, the
    /// file of answers for always, or `once`, of which there is no file.
    package var listName: String? {
        switch self {
        case .policy: nil
        case .denyAlways: "deny.always"
        case .allowAlways: "allow.always"
        case .setup: "setup.egress"
        case .answers: "answers"
        case .once: "once"
        }
    }
}

/// `tcp`, `udp`, `icmp`, `icmpv6`, or the IANA number in decimal.
func protocolName(_ number: UInt8) -> String {
    switch number {
    case TransportProtocol.tcp.rawValue: "tcp"
    case TransportProtocol.udp.rawValue: "udp"
    case 1: "icmp"
    case 58: "icmpv6"
    default: String(number)
    }
}
