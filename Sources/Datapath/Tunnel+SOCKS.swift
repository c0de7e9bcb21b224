import EgressCore
import EgressPolicy
import Glibc
import NetPrimitives
import Reactor
import WireFormat

// Clients of the explicit proxy that speak SOCKS5: the same judgements as for CONNECT, other words.
extension Tunnel {
    /// What a client of the explicit proxy speaks.
    enum ProxyDialect {
        /// HTTP, or nothing was said yet.
        case http
        /// SOCKS5; its greeting is answered.
        case socks
        /// SOCKS, and it is over: what ends the connection is said already, or in ``refuse``'s own words.
        case socksEnding([UInt8])
    }

    /// Looks at what a client sent whose first byte was SOCKS's.
    func lookForSOCKSGreeting(in bytes: [UInt8]) {
        switch SOCKSGreeting.parse(bytes) {
        case .needMore(let count):
            setLowWater(count)
        case .greeting(let greeting):
            dialect = .socks
            guard greeting.offersNoAuthentication else {
                return refuseSOCKS(.unsupportedSOCKS, SOCKSGreeting.noAcceptableMethod)
            }
            let reply = SOCKSGreeting.noAuthentication
            guard Sockets.take(downstream, exactly: greeting.length),
                case .bytes(reply.count) = Sockets.send(downstream, reply[...])
            else { return abort() }
            setLowWater(1)
            lookForProxyRequest()  // a client in a hurry sent its request along
        case .version4:
            refuseSOCKS(.unsupportedSOCKS, SOCKSGreeting.version4Rejected)
        case .malformed, .notSOCKS:
            refuseSOCKS(.malformedSOCKS, [])
        }
    }

    /// Looks at what a client sent after its greeting.
    func lookForSOCKSRequest(in bytes: [UInt8]) {
        switch SOCKSRequest.parse(bytes) {
        case .needMore(let count):
            setLowWater(count)
        case .unsupported(let reply):
            refuseSOCKS(.unsupportedSOCKS, reply.bytes)
        case .malformed:
            refuseSOCKS(.malformedSOCKS, SOCKSReply.generalFailure.bytes)
        case .request(let request):
            guard Sockets.take(downstream, exactly: request.length) else { return abort() }
            connect(request)
        }
    }

    private func connect(_ request: SOCKSRequest) {
        let host: HTTPAuthority.Host
        switch request.destination {
        case .malformedName: return refuseSOCKS(.malformedName, SOCKSReply.notAllowed.bytes)
        case .address(let address): host = .address(address)
        case .name(let name): host = .name(name)
        }
        guard request.command == .connect else {
            return refuseSOCKS(.unsupportedSOCKS, SOCKSReply.commandNotSupported.bytes, host: "\(host)")
        }
        connect(to: host, port: request.port)
    }

    private func refuseSOCKS(_ reason: Reason, _ reply: [UInt8], host: String? = nil) {
        dialect = .socksEnding(reply)
        refuse(.deny(reason), layer: .connect, host: host)
    }
}

// MARK: - What the proxy says, in the client's words

extension Tunnel {
    /// The tunnel is open.
    var proxySuccess: [UInt8] {
        if case .http = dialect { ProxyResponse.connectionEstablished } else { SOCKSReply.succeeded.bytes }
    }

    /// The policy refuses the destination.
    func proxyRefusal(_ verdict: Verdict, host: String?) -> [UInt8] {
        switch dialect {
        case .http: ProxyResponse.denied(verdict, host: host)
        case .socks: SOCKSReply(refusal: verdict.reason).bytes
        case .socksEnding(let reply): reply
        }
    }

    /// The server cannot be reached.
    func proxyFailure(_ error: SystemError) -> [UInt8] {
        if case .http = dialect { ProxyResponse.badGateway } else { SOCKSReply(failure: error).bytes }
    }
}

extension SOCKSReply {
    /// What a client is told of a refusal for `reason`.
    init(refusal reason: Reason) {
        switch reason {
        case .unresolvable, .upstreamFailed: self = .hostUnreachable
        default: self = .notAllowed
        }
    }

    /// What a client is told when dialling ended with `error`.
    init(failure error: SystemError) {
        switch error.errno {
        case ECONNREFUSED: self = .connectionRefused
        case ENETUNREACH: self = .networkUnreachable
        default: self = .hostUnreachable
        }
    }
}
