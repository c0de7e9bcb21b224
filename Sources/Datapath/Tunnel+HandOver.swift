import EgressCore
import EgressPolicy
import NetPrimitives
import Reactor

// From one process to the next: a connection goes on where it was, when it can be told where that is.
//
//     nothing taken of what the client sent ─▶ begins anew, by what is still there to be looked at
//     judged and connected                  ─▶ judged again, relayed on
//     anything else                         ─▶ ends; it has lived for milliseconds, or speaks HTTP/1, whose clients
//                                              begin again by themselves
extension Tunnel {
    /// Gives up the connection for another process to go on with, without a word to either peer; `nil` when it cannot
    /// be, and has ended.
    func handOver() -> HandedTunnel? {
        let handed: HandedTunnel?
        switch phase {
        case .relaying(let relay):
            handed = handOver(relay)
        case .firstBytes, .connecting:
            guard case .address(let destination) = course, isUntouched else { return end() }
            handed = releaseDownstream().map { HandedTunnel(description("\(destination)"), descriptors: [$0]) }
        case .proxyHead:
            guard case .http = dialect, isUntouched else { return end() }
            handed = releaseDownstream().map { HandedTunnel(description(nil), descriptors: [$0]) }
        case .serverFirst, .forwarding, .refusing, .closed:
            return end()
        }
        guard let handed else { return end() }
        phase = .closed
        disarm()
        cancelConnector()
        attachment.remove(self)
        return handed
    }

    /// Whether the client's socket is as it was accepted.
    private var isUntouched: Bool { !hasAnsweredProxy && beginning.passedOn.isEmpty && upstream < 0 }

    private func end() -> HandedTunnel? {
        abort()
        return nil
    }

    private func description(_ endpoint: String?, _ relayed: HandedTunnel.Relayed? = nil) -> HandedTunnel.Description {
        HandedTunnel.Description(endpoint: endpoint, acceptedAt: acceptedAt.nanoseconds, relayed: relayed)
    }

    private func handOver(_ relay: Relay) -> HandedTunnel? {
        // Tunnels have no other gates.
        let gate = relay.gate as? HelloGate
        guard let admission, let endpoint = course.endpoint, let (state, descriptors) = relay.release() else {
            return nil
        }
        var relayed = HandedTunnel.Relayed(
            name: admission.name.map { "\($0)" },
            basis: admission.verdict.shownBasis,
            isOnce: admission.verdict.isOnce,
            authority: nil,
            opening: opening.rawValue,
            layer: layer?.rawValue,
            bytesUpBefore: bytesBefore.up,
            bytesDownBefore: bytesBefore.down,
            relay: state,
            hello: state.hasGate ? gate?.memo : nil
        )
        if case .name(let authority, _) = course { relayed.authority = "\(authority)" }
        return HandedTunnel(description("\(endpoint)", relayed), descriptors: descriptors)
    }

    /// Goes on with a relayed connection. The caller reconsiders it.
    func goOn(with relayed: HandedTunnel.Relayed, server: Endpoint, descriptors: [CInt]) {
        attachment.add(self)
        let admission = attachment.admission(of: relayed, at: server)
        self.admission = admission
        if let authority = relayed.authority.flatMap({ try? DomainName($0) }) { course = .name(authority, server) }
        let opening = relayed.opening.flatMap(LiveConnection.Opening.init(rawValue:))
        isProxied = opening.map { $0 != .redirected } ?? (relayed.authority != nil)
        if opening == .socks { dialect = .socks }
        layer = relayed.layer.flatMap(AuditEvent.Layer.init(rawValue:))
        bytesBefore = (relayed.bytesUpBefore, relayed.bytesDownBefore)
        let relay = Relay(
            loop: attachment.loop,
            continuing: relayed.relay,
            descriptors: descriptors,
            gate: relayed.hello.map { HelloGate(continuing: $0, relayed.relay, of: self) },
            keepsUndelivered: true,
            idleSeconds: attachment.limits.idleSeconds,
            onClose: relayEnded
        )
        phase = .relaying(relay)
        guard admission.verdict.action == .allow else { return abort() }
        relay.start()
    }
}

extension Attachment {
    /// Gives up what can go on in another process; everything else ends.
    public func handOver() -> [HandedTunnel] {
        let handed = tunnels.all.compactMap { $0.handOver() } + lingering.all.compactMap { $0.handOver() }
        stop()
        return handed
    }

    /// Goes on with a connection that another process had; one that the policy no longer allows, or that there is no
    /// room for, ends.
    public func takeOver(_ handed: HandedTunnel) {
        let description = handed.description
        let endpoint = description.endpoint.flatMap { Endpoint(parsing: $0, defaultPort: 0) }
        let relayed = description.relayed
        guard !isPaused, hasRoomForTunnel, handed.descriptors.count == description.descriptorCount,
            endpoint != nil || description.endpoint == nil, (relayed?.hello != nil) == (relayed?.relay.hasGate ?? false)
        else { return handed.close() }
        let acceptedAt = MonotonicTime(nanoseconds: description.acceptedAt)
        if let relayed, let endpoint, relayed.relay == .ended {
            Sockets.close(handed.descriptors[0])
            letGo(handed.descriptors[1], at: endpoint, admission(of: relayed, at: endpoint))
        } else if let relayed, let endpoint {
            Tunnel(self, downstream: -1, entry: .transparent(endpoint), acceptedAt: acceptedAt)
                .goOn(with: relayed, server: endpoint, descriptors: handed.descriptors)
        } else if relayed == nil, let client = handed.descriptors.first {
            let entry: Tunnel.Entry = endpoint.map { .transparent($0) } ?? .proxy
            // Whatever version that process was, and however much it waited for.
            Sockets.setNoDelay(client)
            Sockets.setReceiveLowWater(client, 1)
            Tunnel(self, downstream: client, entry: entry, acceptedAt: acceptedAt).start()
        } else {
            handed.close()
        }
    }

    /// What a relayed connection is let in by now.
    fileprivate func admission(of relayed: HandedTunnel.Relayed, at server: Endpoint) -> TunnelJudge.Admission {
        let name = relayed.name.flatMap { try? DomainName($0) }
        let verdict = judge.judgeAgain(
            name: name,
            destination: server,
            basis: relayed.basis,
            once: relayed.isOnce ?? false
        )
        return TunnelJudge.Admission(verdict, name: name)
    }
}
