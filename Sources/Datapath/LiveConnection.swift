public import EgressCore
public import EgressPolicy
public import NetPrimitives
import Nftables
import Reactor

/// A connection or datagram flow of a sandbox, as it was when somebody asked. Nothing is kept up to date for it meanwhile.
public struct LiveConnection: Hashable, Sendable {
    /// How a connection came to us.
    public enum Opening: String, Hashable, Sendable {
        /// Redirected by the kernel on its way to an address.
        case redirected
        /// Over the explicit proxy, by CONNECT.
        case connect
        /// Over the explicit proxy, by SOCKS.
        case socks
        /// Over the explicit proxy, by HTTP requests that name a host each; or nothing was asked for yet.
        case proxy
    }

    /// Where it is in its life.
    public enum State: String, Hashable, Sendable {
        /// It is being judged, or its server dialled.
        case opening
        /// It was let through.
        case open
        /// Its end is on its way to the client.
        case closing
    }

    /// The sandbox it belongs to.
    public let sandbox: String
    /// Tells it from the sandbox's others over the same transport protocol, also from those that have ended, while the
    /// process lives.
    public let number: UInt32
    /// Where it is in its life.
    public var state: State
    /// How it came to us.
    public let opening: Opening
    /// Its transport protocol.
    public let transport: TransportProtocol
    /// By what it was judged; `nil` while it is not.
    public var layer: AuditEvent.Layer?
    /// The name it shows, or else the one that its address was last resolved for.
    public var name: DomainName?
    /// The address it goes to, when it is known.
    public var address: IPAddress?
    /// The port it goes to, when it is known.
    public var port: UInt16?
    /// Since when it has lived.
    public let since: WallTime
    /// Bytes from the sandbox that were passed on.
    public let bytesUp: UInt64
    /// Bytes to the sandbox that were passed on.
    public let bytesDown: UInt64
    /// What the policy in force says of it; `nil` while it is not judged.
    public var verdict: Verdict?
}

extension Tunnel {
    /// How it came to us.
    var opening: LiveConnection.Opening {
        guard isProxied else { return .redirected }
        guard case .http = dialect else { return .socks }
        if case .unknown = course { return .proxy }
        return .connect
    }

    /// Whether it has come to its end, and belongs to nobody.
    var isClosed: Bool { if case .closed = phase { true } else { false } }

    /// Bytes that were passed on so far, until its end was recorded.
    var bytes: (up: UInt64, down: UInt64) {
        switch phase {
        case .relaying(let relay):
            let relayed = relay.bytes
            return (bytesBefore.up + relayed.up, bytesBefore.down + relayed.down)
        case .serverFirst(let pump): return (UInt64(beginning.passedOn.count), pump.delivered)
        case .forwarding(let forwarder): return forwarder.bytes
        case .proxyHead, .firstBytes, .connecting, .refusing, .closed: return (0, 0)
        }
    }

    /// As it is now. Not when it is closed.
    func described() -> LiveConnection {
        let bytes = bytes
        var description = LiveConnection(
            sandbox: attachment.id,
            number: place.number,
            state: .opening,
            opening: opening,
            transport: .tcp,
            since: attachment.wallTime(of: acceptedAt),
            bytesUp: bytes.up,
            bytesDown: bytes.down
        )
        var name = admission?.name
        var endpoint = course.endpoint
        switch phase {
        case .relaying, .serverFirst:
            description.state = .open
            description.layer = layer
            description.verdict = endpoint.flatMap { verdictNow(at: $0) }
        case .forwarding(let forwarder):
            name = forwarder.admission?.name ?? forwarder.recorded?.name
            endpoint = forwarder.admission?.endpoint ?? forwarder.recorded?.endpoint ?? endpoint
            guard !forwarder.isEnding else {
                description.state = .closing
                break
            }
            guard forwarder.recorded != nil else { break }
            description.state = .open
            description.layer = .httpHost
            description.verdict = forwarder.verdictNow()
        case .refusing, .closed:
            description.state = .closing
        case .proxyHead, .firstBytes, .connecting:
            break
        }
        if case .authority(let authority, _) = course { name = name ?? authority }
        if case .name(let authority, _) = course { name = name ?? authority }
        description.name = attachment.likelyName(name, at: endpoint)
        description.address = endpoint?.address
        description.port = endpoint?.port ?? course.port
        return description
    }
}

extension DatagramFlow {
    /// As it is now. Not when it has ended.
    func described() -> LiveConnection {
        LiveConnection(
            sandbox: attachment.id,
            number: number,
            state: .open,
            opening: .redirected,
            transport: .udp,
            layer: .ip,
            name: attachment.likelyName(judgement.name, at: redirection.destination),
            address: redirection.destination.address,
            port: redirection.destination.port,
            since: attachment.wallTime(of: startedAt),
            bytesUp: bytesUp,
            bytesDown: bytesDown,
            verdict: verdictNow()
        )
    }
}

extension Attachment {
    /// The civil time at a moment of the loop's clock, by how far apart the two are now.
    fileprivate func wallTime(of moment: MonotonicTime) -> WallTime {
        let elapsed = loop.now.nanoseconds - min(moment.nanoseconds, loop.now.nanoseconds)
        return WallTime(microseconds: loop.wallTime().microseconds - Int64(elapsed / 1_000))
    }
}
