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
    var kind: AuditEvent.Kind {
        switch self {
        case .connections, .flowRate: .connectionDenied
        case .queries, .dnsClients: .dnsDenied
        }
    }

    /// `event`, which is of its ``kind``, with what it says of `count` times.
    func event(_ count: UInt64, _ event: AuditEvent) -> AuditEvent {
        var event = event
        event.count = count
        switch self {
        case .connections:
            event.layer = .ip
            event.verdict = .deny(.connectionLimit)
            event.ipProtocol = TransportProtocol.tcp.rawValue
        case .queries:
            event.layer = .dns
            event.verdict = .deny(.queryLimit)
            event.ipProtocol = TransportProtocol.udp.rawValue
        case .dnsClients:
            event.layer = .dns
            event.verdict = .deny(.clientLimit)
            event.ipProtocol = TransportProtocol.tcp.rawValue
        case .flowRate:
            event.layer = .ip
            event.verdict = .deny(.flowLimit)
            event.ipProtocol = TransportProtocol.udp.rawValue
        }
        return event
    }
}
