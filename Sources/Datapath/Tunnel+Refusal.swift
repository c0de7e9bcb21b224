import EgressCore
import EgressPolicy
import NetPrimitives
import Reactor
import WireFormat

// The end that a judgement brings, said in the protocol the client speaks.
extension Tunnel {
    /// Refuses and records. In report mode, what does not go to a guard range passes and is recorded as a would-be
    /// denial.
    func refuse(_ verdict: Verdict, layer: AuditEvent.Layer, name: DomainName? = nil, host: String? = nil) {
        if let endpoint = course.endpoint, attachment.reports(verdict, at: endpoint) {
            return follow(TunnelJudge.Judgement(verdict.reported, .dial(endpoint), name: name), layer: layer)
        }
        recordDenied(verdict, layer: layer, name: name, host: host)
        switch layer {
        case .tlsSNI:
            end(with: TLSAlert.accessDenied)
        case .connect:
            end(with: proxyRefusal(verdict, host: host ?? name?.description))
        case .httpHost:
            end(with: ProxyResponse.denied(verdict, host: host ?? name?.description))
        case .dns, .ip:
            abort()
        }
    }

    func recordDenied(_ verdict: Verdict, layer: AuditEvent.Layer, name: DomainName?, host: String? = nil) {
        var event = attachment.connectionEvent(
            .connectionDenied,
            layer: layer,
            verdict: verdict,
            name: name,
            endpoint: course.endpoint
        )
        if let host { event.host = host }
        event.port = course.port
        attachment.record(event)
    }

    /// Sends `bytes` and ends the connection so that they arrive.
    func end(with bytes: [UInt8]) {
        disarm()
        cancelConnector()
        if case .serverFirst(let pump) = phase { stop(pump) }
        if let server = releaseUpstream() { Sockets.reset(server) }
        guard let client = releaseDownstream() else { return abort() }
        let farewell = Farewell(loop: attachment.loop, descriptor: client, bytes: bytes)
        phase = .refusing(farewell)
        farewell.start { [weak self] in
            guard let self else { return }
            phase = .closed
            attachment.remove(self)
        }
    }
}

extension Verdict {
    /// A denial that no rule took.
    static func deny(_ reason: Reason) -> Verdict { Verdict(.deny, reason) }
}

extension ResolutionFailure {
    /// The failure as the verdict of a refusal.
    var verdict: Verdict {
        switch self {
        case .denied(let verdict): verdict
        case .noAddress: .deny(.unresolvable)
        case .upstreamFailed: .deny(.upstreamFailed)
        case .limited(let reason): .deny(reason)
        }
    }
}
