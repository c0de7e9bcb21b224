import EgressCore
import EgressPolicy
import NetPrimitives
import Reactor
import WireFormat

// Clients that were told of the explicit proxy: CONNECT, absolute-form requests for cleartext HTTP, and SOCKS5.
extension Tunnel {
    private static let headLimit = 64 * 1024

    /// Waits for the client's first request.
    func awaitProxyRequest() {
        arm(afterMilliseconds: attachment.limits.peekMilliseconds) { tunnel in
            tunnel.recordDenied(.deny(.deadline), layer: .connect, name: nil)
            tunnel.abort()
        }
    }

    func lookForProxyRequest() {
        let bytes: [UInt8]
        switch Sockets.peek(downstream, upTo: Self.headLimit, lentBy: attachment.loop) {
        case .bytes(let peeked): bytes = peeked
        case .wouldBlock: return
        case .ended, .failed: return abort()
        }
        if case .socks = dialect { return lookForSOCKSRequest(in: bytes) }
        if let first = bytes.first, SOCKSGreeting.begins(with: first) { return lookForSOCKSGreeting(in: bytes) }
        var parser = HTTPRequestHeadParser()
        switch parser.parse(bytes) {
        case .needMore(let count):
            guard bytes.count < Self.headLimit else { return refuse(.deny(.malformedHTTP), layer: .connect) }
            setLowWater(min(count, Self.headLimit))
        case .head(let head) where head.method == "CONNECT":
            guard Sockets.take(downstream, exactly: head.length) else { return abort() }
            connect(head)
        case .head:
            forward()  // the forwarder reads it again and judges it, as every later one
        case .malformed, .notHTTP, .http2Preface:
            refuse(.deny(.malformedHTTP), layer: .connect)
        }
    }

    private func connect(_ head: HTTPRequestHead) {
        guard case .authority(let authority) = head.target, let port = authority.port, head.framing == .none else {
            return refuse(.deny(.malformedHTTP), layer: .connect)
        }
        connect(to: authority.host, port: port)
    }

    /// A destination that the client named, in whatever protocol.
    func connect(to host: HTTPAuthority.Host, port: UInt16) {
        guard port != Attachment.resolverPort else {
            return refuse(.deny(.default), layer: .connect, host: HTTPAuthority(host, port: port).description)
        }
        switch host {
        case .address(let address):
            let destination = Endpoint(address, port)
            course = .address(destination)
            if let refusal = attachment.judge.judgeReachability(of: destination) {
                return refuse(refusal.verdict, layer: .connect)
            }
            // From here on it is what it would have been without a proxy: a connection to that address.
            beginTunnel()
        case .name(let name):
            resolveAndConnect(name, port: port)
        }
    }

    private func resolveAndConnect(_ name: DomainName, port: UInt16) {
        let host = "\(name)"
        course = .authority(name, port: port)
        if let refusal = attachment.judge.judgeAuthority(name: name) {
            return askOrRefuse(refusal.verdict, name, port: port)
        }
        phase = .connecting
        disarm()
        attachment.resolve(name) { [weak self] result in
            guard let self, case .connecting = phase else { return }
            let addresses: [IPAddress]
            switch result {
            case .failure(let failure): return refuse(failure.verdict, layer: .connect, name: name, host: host)
            case .success(let resolved): addresses = resolved
            }
            let (judgement, endpoints) = attachment.judge.judgeResolved(name: name, port: port, addresses: addresses)
            guard judgement.verdict.action == .allow, let first = endpoints.first else {
                return askOrRefuse(judgement.verdict, name, port: port)
            }
            admission = judgement.admission
            course = .name(name, first)
            dial(endpoints) { $0.beginTunnel() }
        }
    }

    /// The policy does not allow the authority: somebody is asked where it does not speak of it.
    private func askOrRefuse(_ verdict: Verdict, _ name: DomainName, port: UInt16) {
        let isAsked = asks(about: name, verdict) { tunnel, ending in
            switch ending {
            case .denied(let reason):
                tunnel.refuse(.deny(reason), layer: .connect, name: name, host: "\(name)")
            case .judgeAgain: tunnel.resolveAndConnect(name, port: port)
            }
        }
        if !isAsked { refuse(verdict, layer: .connect, name: name, host: "\(name)") }
    }

    /// The authority is admitted; what the client sends into the tunnel is still to be judged.
    private func beginTunnel() {
        hasAnsweredProxy = true
        let reply = proxySuccess
        guard case .bytes(reply.count) = Sockets.send(downstream, reply[...]) else { return abort() }
        setLowWater(1)
        awaitFirstBytes()
        // What the client sent behind its request has been told of already.
        lookAtFirstBytes()
    }
}
