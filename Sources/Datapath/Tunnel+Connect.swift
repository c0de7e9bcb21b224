import EgressCore
import EgressPolicy
import NetPrimitives
import Reactor

// From the judgement to the relay, and the end.
extension Tunnel {
    /// Dials the first of `endpoints` that answers, unless the server is connected already, and relays.
    func connectAndRelay(to endpoints: [Endpoint]) {
        if case .serverFirst(let pump) = phase { return relay(takingOver: pump) }
        if upstream >= 0 { return relay() }
        dial(endpoints) { $0.relay() }
    }

    /// Dials; `next` runs with the server's socket in ``upstream``.
    func dial(_ endpoints: [Endpoint], then next: @escaping (Tunnel) -> Void) {
        phase = .connecting
        disarm()
        beginning.dialled = endpoints
        beginning.connector = Connector.watching(
            loop: attachment.loop,
            endpoints: endpoints,
            timeoutMilliseconds: attachment.limits.connectMilliseconds
        ) { [self] result in
            beginning.connector = nil
            switch result {
            case .success(let socket):
                let descriptor = keepUpstream(socket)
                // Which of the endpoints answered is what the connection is judged by from now on.
                let peer = Sockets.peerEndpoint(descriptor)
                if let peer { course.setEndpoint(peer) }
                guard !attachment.leadsToNode(descriptor, peer) else { return refuseNode() }
                attachment.latencies.countConnection(since: acceptedAt)
                next(self)
            case .failure(let error):
                dialOtherAddresses(after: error, then: next)
            }
        }
    }

    /// A redirected client has its connection already and cannot fall back to the name's other addresses, as RFC 8305
    /// has it do: so they are tried here, once, each judged as the first was.
    private func dialOtherAddresses(after error: SystemError, then next: @escaping (Tunnel) -> Void) {
        guard !hasTriedOtherAddresses, let admission, admission.verdict.basis == .name, let name = admission.name,
            let port = course.port
        else { return upstreamFailed(error) }
        hasTriedOtherAddresses = true
        attachment.findEndpoints(of: name, port: port, otherThan: beginning.dialled) { [weak self] others in
            guard let self, case .connecting = phase else { return }
            others.isEmpty ? upstreamFailed(error) : dial(others, then: next)
        }
    }

    /// The server cannot be reached: no refusal of ours, but the client must see it fail as it would have failed.
    private func upstreamFailed(_ error: SystemError) {
        recordClosed(bytesUp: 0, bytesDown: 0, verdict: Verdict(.allow, .upstreamFailed))
        if case .name = course, !hasAnsweredProxy {
            end(with: proxyFailure(error))
        } else {
            abort()
        }
    }

    /// What answered is this machine.
    private func refuseNode() {
        if case .name(let name, _) = course, !hasAnsweredProxy {
            refuse(.deny(.guardRange), layer: .connect, name: name)
        } else {
            refuse(.deny(.guardRange), layer: .ip, name: admission?.name)
        }
    }

    private func relay(takingOver pump: ServerFirstPump) {
        let (descriptor, pending) = pump.release()
        bytesBefore = (UInt64(beginning.passedOn.count), pump.delivered)
        upstream = descriptor
        relay(initialToDownstream: pending)
    }

    private func relay(initialToDownstream: [UInt8] = []) {
        disarm()
        guard downstream >= 0 else { return abort() }
        setLowWater(1)
        if initialToDownstream.isEmpty, let (client, server, watch) = releaseWatched() {
            makeRelay(client, server).start(takingOver: (downstream: self, upstream: watch))
        } else {
            guard let client = releaseDownstream(), let server = releaseUpstream() else { return abort() }
            makeRelay(client, server, initialToDownstream).start()
        }
    }

    private func makeRelay(_ client: CInt, _ server: CInt, _ initialToDownstream: [UInt8] = []) -> Relay {
        let relay = Relay(
            loop: attachment.loop,
            downstream: client,
            upstream: server,
            initialToDownstream: initialToDownstream,
            gate: gate(),
            keepsUndelivered: true,
            idleSeconds: attachment.limits.idleSeconds,
            onClose: relayEnded
        )
        phase = .relaying(relay)
        forgetBeginning()
        return relay
    }

    func relayEnded(_ result: RelayResult) {
        recordClosed(
            bytesUp: bytesBefore.up + result.bytesUp,
            bytesDown: bytesBefore.down + result.bytesDown,
            verdict: admission?.verdict
        )
        phase = .closed
        disarm()
        if let server = result.undelivered { attachment.letGo(server, at: course.endpoint, admission) }
        attachment.remove(self)
    }

    func recordClosed(bytesUp: UInt64, bytesDown: UInt64, verdict: Verdict?) {
        var event = attachment.connectionEvent(
            .connectionClosed,
            layer: .ip,
            verdict: verdict,
            name: admission?.name,
            endpoint: course.endpoint
        )
        event.layer = nil
        event.bytesUp = bytesUp
        event.bytesDown = bytesDown
        event.durationMilliseconds = (attachment.loop.now.nanoseconds - acceptedAt.nanoseconds) / 1_000_000
        attachment.record(event)
    }

    /// Hands the client's socket, and the server's if there is one, to the forwarder, which reads and judges requests.
    func forward() {
        disarm()
        let pending: (CInt, [UInt8])?
        if case .serverFirst(let pump) = phase {
            pending = pump.release()
        } else {
            pending = releaseUpstream().map { ($0, []) }
        }
        if downstream >= 0 { setLowWater(1) }
        guard let client = releaseDownstream() else { return abort() }
        let forwarder = HTTPForwarder(
            attachment: attachment,
            course: course,
            downstream: client,
            acceptedAt: acceptedAt
        )
        forwarder.onEnd = { [weak self] in
            guard let self else { return }
            phase = .closed
            attachment.remove(self)
        }
        phase = .forwarding(forwarder)
        forwarder.start(upstream: pending)
    }
}

extension Attachment {
    /// The endpoints of `name` that may be dialled, without those that were tried; none when the name cannot be resolved.
    /// `completion` is called once, now or later.
    func findEndpoints(
        of name: DomainName,
        port: UInt16,
        otherThan tried: [Endpoint],
        completion: @escaping ([Endpoint]) -> Void
    ) {
        resolve(name) { [weak self] result in
            guard let self, case .success(let addresses) = result else { return completion([]) }
            let (_, endpoints) = judge.judgeResolved(name: name, port: port, addresses: addresses)
            completion(endpoints.filter { !tried.contains($0) })
        }
    }

    /// The name that a connection shows, or else the one that its address was last resolved for.
    func likelyName(_ name: DomainName?, at endpoint: Endpoint?) -> DomainName? {
        name ?? endpoint.flatMap { pinner.table.lastName(at: $0.address) }
    }

    /// A record about a connection.
    func connectionEvent(
        _ kind: AuditEvent.Kind,
        layer: AuditEvent.Layer,
        verdict: Verdict?,
        name: DomainName?,
        endpoint: Endpoint?,
        over transport: TransportProtocol = .tcp
    ) -> AuditEvent {
        var event = event(kind)
        event.layer = layer
        event.verdict = verdict
        event.host = likelyName(name, at: endpoint)?.description
        event.address = endpoint?.address
        event.port = endpoint?.port
        event.ipProtocol = transport.rawValue
        return event
    }
}
