import EgressCore
import EgressPolicy
import NetPrimitives

/// A limit that bites before it is known what was wanted, so that there is nothing to record but how often it did.
enum LimitNotice: Hashable {
    /// A connection was reset: there are as many as there may be.
    case connections
    /// A query was lost: as many wait in the socket as it takes.
    case queries
    /// A TCP client of DNS was reset, and no other was idle.
    case dnsClients
    /// A datagram was lost: as many flows have begun lately as may.
    case flowRate

    /// What it is recorded as.
    var kind: AuditEvent.Kind { words.kind }

    /// `event`, which is of its ``kind``, with what it says of `count` times.
    func event(_ count: UInt64, _ event: AuditEvent) -> AuditEvent {
        var event = event
        event.count = count
        event.layer = words.layer
        event.verdict = .deny(words.reason)
        event.ipProtocol = words.transport.rawValue
        return event
    }

    private var words: (kind: AuditEvent.Kind, layer: AuditEvent.Layer, reason: Reason, transport: TransportProtocol) {
        switch self {
        case .connections: (.connectionDenied, .ip, .connectionLimit, .tcp)
        case .queries: (.dnsDenied, .dns, .queryLimit, .udp)
        case .dnsClients: (.dnsDenied, .dns, .clientLimit, .tcp)
        case .flowRate: (.connectionDenied, .ip, .flowLimit, .udp)
        }
    }
}
