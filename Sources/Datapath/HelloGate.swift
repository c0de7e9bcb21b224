import EgressCore
import EgressPolicy
import NetPrimitives
import Reactor
import WireFormat

/// Holds a TLS client to the server name that it was let in by: where its server asks for another ClientHello
/// (HelloRetryRequest), servers go by the name in that one, and it is in the clear as the first was.
///
/// Until the server has answered, what the client says behind its first hello waits. So a client that does not wait for the
/// answer gains nothing, and early data (RFC 8446 2.3) go out a round trip later than they might.
final class HelloGate: RelayGate {
    /// What another process needs to go on, besides the relay's state.
    struct Memo: Codable, Sendable {
        /// The server name; `nil` as well for one that is none, which is let in only where refusals are merely reported.
        var name: String?
        /// What was seen of the server's answer.
        var detector: HelloRetryDetector
    }

    private let serverName: ClientHello.ServerName
    /// Who has the relay that has the gate. A weak reference would take memory as long as the tunnel lives.
    private unowned let tunnel: Tunnel
    private var detector = HelloRetryDetector()

    /// A gate behind `hello`, by which `tunnel` was let in.
    init(behind hello: ClientHello, of tunnel: Tunnel) {
        serverName = hello.serverName
        self.tunnel = tunnel
        super.init(allowance: hello.length)
    }

    /// The gate of `tunnel` that another process had; open where that had none.
    init(continuing memo: Memo, _ relay: RelayState, of tunnel: Tunnel) {
        serverName = memo.name.flatMap { try? DomainName($0) }.map { .name($0) } ?? .absent
        detector = memo.detector
        self.tunnel = tunnel
        super.init(continuing: relay)
    }

    /// What another process needs to go on, besides the relay's state.
    var memo: Memo {
        guard case .name(let name) = serverName else { return Memo(name: nil, detector: detector) }
        return Memo(name: "\(name)", detector: detector)
    }

    override func upstreamSaid(_ bytes: UnsafeRawBufferPointer) {
        switch detector.look(at: bytes) {
        case .needMore: break
        case .retry: state = .looking
        case .other: state = .open
        }
    }

    override func downstreamSays(_ bytes: [UInt8]) -> Step {
        switch SecondHello.examine(bytes) {
        case .needMore(let count):
            return count <= Tunnel.peekLimit ? .waits(forAtLeast: count) : judge(.malformedHello, nil)
        case .passes(let count):
            return .passes(count)
        case .hello(let hello) where hello.serverName == serverName:
            return .opens
        case .hello(let hello):
            guard case .name(let name) = hello.serverName else { return judge(.nameAddressMismatch, nil) }
            return judge(.nameAddressMismatch, name)
        case .malformed:
            return judge(.malformedHello, nil)
        }
    }

    private func judge(_ reason: Reason, _ name: DomainName?) -> Step {
        tunnel.passes(anotherHello: name, reason) ? .opens : .refuses
    }
}

extension Tunnel {
    /// What holds the client to the hello that was judged; `nil` where there was none.
    func gate() -> HelloGate? {
        beginning.hello.map { HelloGate(behind: $0, of: self) }
    }

    /// Refuses and records, as ``refuse(_:layer:name:host:)`` does of a first hello, but that the client's bytes have begun to
    /// pass. Whether they go on all the same.
    fileprivate func passes(anotherHello name: DomainName?, _ reason: Reason) -> Bool {
        guard case .relaying(let relay) = phase else { return false }
        let verdict = Verdict.deny(reason)
        if let endpoint = course.endpoint, attachment.reports(verdict, at: endpoint) {
            // What it was let in by, it is not any more.
            admission = TunnelJudge.Admission(verdict.reported, name: name)
            let event = attachment.connectionEvent(
                .connectionAllowed,
                layer: .tlsSNI,
                verdict: verdict.reported,
                name: name,
                endpoint: endpoint
            )
            attachment.record(event)
            return true
        }
        recordDenied(verdict, layer: .tlsSNI, name: name)
        relay.abort()
        return false
    }
}
