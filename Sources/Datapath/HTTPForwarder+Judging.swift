import EgressCore
import EgressPolicy
import NetPrimitives
import Reactor
import WireFormat

// Each request's own judgement: which host it names, where that may be dialled.
extension HTTPForwarder {
    func judge(_ head: HTTPRequestHead) {
        attempt += 1
        hasTriedOtherAddresses = false
        admission = nil
        switch course {
        case .unknown, .authority:
            guard case .absolute(let authority, _) = head.target else { return refuseMalformed() }
            judgeProxied(authority, head)
        case .address(let destination):
            guard head.host.port == nil || head.host.port == destination.port else {
                return refuse(.deny(.nameAddressMismatch), host: head.host.host.description, endpoint: destination)
            }
            judgeTransparent(head, destination)
        case .name(let authority, let destination):
            guard head.host.host == .name(authority), head.host.port == nil || head.host.port == destination.port else {
                return refuse(.deny(.nameAddressMismatch), host: head.host.host.description, endpoint: destination)
            }
            follow(
                attachment.judge.judgeTunnelled(name: authority, authority: authority, destination: destination),
                head,
                host: head.host.host.description,
                endpoint: destination
            )
        }
    }

    /// A request on its way to `destination`.
    private func judgeTransparent(_ head: HTTPRequestHead, _ destination: Endpoint) {
        let host = head.host
        switch host.host {
        case .name(let name):
            follow(
                attachment.judge.judge(name: name, destination: destination),
                head,
                host: host.host.description,
                endpoint: destination
            )
        case .address(let address):
            guard address == destination.address else {
                return refuse(.deny(.nameAddressMismatch), host: host.host.description, endpoint: destination)
            }
            follow(
                attachment.judge.judgeNameless(destination: destination, reason: .default),
                head,
                host: host.host.description,
                endpoint: destination
            )
        }
    }

    /// A request in absolute form: the authority is judged, resolved and dialled by us, as for CONNECT.
    private func judgeProxied(_ authority: HTTPAuthority, _ head: HTTPRequestHead) {
        let port = authority.port ?? 80
        guard port != Attachment.resolverPort else {
            return refuse(.deny(.default), host: authority.description, endpoint: nil, port: port)
        }
        switch authority.host {
        case .address(let address):
            let destination = Endpoint(address, port)
            follow(
                attachment.judge.judgeNameless(destination: destination, reason: .default),
                head,
                host: authority.host.description,
                endpoint: destination
            )
        case .name(let name):
            if let refusal = attachment.judge.judgeAuthority(name: name) {
                return askOrRefuse(refusal.verdict, head, host: name.description, name: name, port: port)
            }
            resolve(name, port: port, head)
        }
    }

    private func follow(
        _ judgement: TunnelJudge.Judgement,
        _ head: HTTPRequestHead,
        host: String,
        endpoint: Endpoint
    ) {
        guard judgement.verdict.action == .allow else {
            return askOrRefuse(judgement.verdict, head, host: host, name: judgement.name, endpoint: endpoint)
        }
        switch judgement.route {
        case .refuse: refuse(judgement.verdict, host: host, endpoint: endpoint, name: judgement.name)
        case .dial(let endpoint): admit(judgement, [endpoint])
        case .resolve(let name, let port): resolve(name, port: port, head)
        }
    }

    /// Has somebody asked about a request for a name that no rule speaks of, which is judged again when that has come to
    /// an end. Refused are what the answer denies, and what nobody is to be asked about.
    private func askOrRefuse(
        _ verdict: Verdict,
        _ head: HTTPRequestHead,
        host: String,
        name: DomainName?,
        endpoint: Endpoint? = nil,
        port: UInt16? = nil
    ) {
        let subject = attachment.subject(
            of: verdict,
            about: name,
            port: port ?? endpoint?.port,
            at: endpoint?.address
        )
        guard let subject, let desk = attachment.desk else {
            return refuse(verdict, host: host, endpoint: endpoint, name: name, port: port)
        }
        let question = attempt
        desk.ask(subject) { [weak self] ending in
            guard let self, case .exchanging = phase, attempt == question else { return }
            switch ending {
            case .judgeAgain: judge(head)
            case .denied(let reason): refuse(.deny(reason), host: host, endpoint: endpoint, name: name, port: port)
            }
        }
    }

    private func resolve(_ name: DomainName, port: UInt16, _ head: HTTPRequestHead) {
        let question = attempt
        attachment.resolve(name) { [weak self] result in
            guard let self, case .exchanging = phase, attempt == question else { return }
            switch result {
            case .failure(.upstreamFailed), .failure(.noAddress):
                end(with: ProxyResponse.badGateway)
            case .failure(.denied(let verdict)):
                refuse(verdict, host: name.description, endpoint: nil, name: name, port: port)
            case .failure(.limited(let reason)):
                refuse(.deny(reason), host: name.description, endpoint: nil, name: name, port: port)
            case .success(let addresses):
                let (judgement, endpoints) = attachment.judge.judgeResolved(
                    name: name,
                    port: port,
                    addresses: addresses
                )
                guard judgement.verdict.action == .allow else {
                    return askOrRefuse(judgement.verdict, head, host: name.description, name: name, port: port)
                }
                admit(judgement, endpoints)
            }
        }
    }

    private func admit(_ judgement: TunnelJudge.Judgement, _ endpoints: [Endpoint]) {
        admission = Admission(name: judgement.name, endpoint: endpoints[0], verdict: judgement.verdict)
        if recorded?.name != judgement.name || !(recorded.map { endpoints.contains($0.endpoint) } ?? false) {
            recorded = (judgement.name, endpoints[0])
            attachment.record(
                attachment.connectionEvent(
                    .connectionAllowed,
                    layer: .httpHost,
                    verdict: judgement.verdict,
                    name: judgement.name,
                    endpoint: endpoints[0]
                )
            )
        }
        if let name = judgement.name { attachment.pinner.renew(endpoints[0].address, for: name) }
        serve(from: endpoints)
    }
}

// MARK: - Refusing

extension HTTPForwarder {
    private func refuseMalformed() {
        recordDenied(.deny(.malformedHTTP), host: nil, endpoint: course.endpoint)
        end(with: ProxyResponse.badRequest)
    }

    func refuse(
        _ verdict: Verdict,
        host: String,
        endpoint: Endpoint?,
        name: DomainName? = nil,
        port: UInt16? = nil
    ) {
        if let endpoint, attachment.reports(verdict, at: endpoint) {
            let judgement = TunnelJudge.Judgement(verdict.reported, .dial(endpoint), name: name)
            return admit(judgement, [endpoint])
        }
        recordDenied(verdict, host: host, endpoint: endpoint, port: port)
        end(with: ProxyResponse.denied(verdict, host: host))
    }

    func recordDenied(_ verdict: Verdict, host: String?, endpoint: Endpoint?, port: UInt16? = nil) {
        var event = attachment.connectionEvent(
            .connectionDenied,
            layer: .httpHost,
            verdict: verdict,
            name: nil,
            endpoint: endpoint
        )
        if let host { event.host = host }
        if let port { event.port = port }
        attachment.record(event)
    }
}

extension Attachment {
    /// DNS is always our resolver's: no CONNECT gets to a port that no other connection gets to.
    static let resolverPort: UInt16 = 53

    /// Whether the policy only reports, so that a denial with `verdict` at `endpoint` passes and is recorded. Guard
    /// ranges and a pause stay closed; of a guarded address a rule may have opened other ports than this.
    func reports(_ verdict: Verdict, at endpoint: Endpoint) -> Bool {
        guard policy.policy.mode == .report, !verdict.isReportOnly, ![.paused, .guardRange].contains(verdict.reason)
        else { return false }
        let flow = Flow(name: nil, address: endpoint.address, port: endpoint.port, transport: .tcp)
        return policy.decide(flow, at: loop.wallTime()).action == .allow
    }
}

extension Verdict {
    /// The denial as a verdict of report mode: let through, with what would have denied it.
    var reported: Verdict {
        var verdict = self
        verdict.action = .allow
        verdict.isReportOnly = true
        return verdict
    }
}
