import EgressCore
import EgressPolicy
import NetPrimitives
import Reactor
import WireFormat

// What the client sends first, and what follows from it.
extension Tunnel {
    /// The most that is looked at: a ClientHello or request head that needs more is malformed.
    static let peekLimit = 64 * 1024

    /// Waits for the client's first bytes: until the deadline on browsers' ports, for a moment on others, where the
    /// server may be the one to speak first.
    func awaitFirstBytes() {
        phase = .firstBytes
        beginning.listeningSince = attachment.loop.now
        let limits = attachment.limits
        if course.isWebPort {
            arm(afterMilliseconds: limits.peekMilliseconds) { $0.refuse(.deny(.deadline), layer: .ip) }
        } else {
            arm(afterMilliseconds: limits.serverFirstMilliseconds) { $0.letServerSpeak() }
        }
    }

    func lookAtFirstBytes() {
        let bytes: [UInt8]
        switch Sockets.peek(downstream, upTo: Self.peekLimit, lentBy: attachment.loop) {
        case .bytes(let peeked): bytes = peeked
        case .wouldBlock: return
        case .ended: return clientEndedSilently()
        case .failed: return abort()
        }
        switch examine(bytes) {
        case .needMore(let count):
            guard count <= Self.peekLimit else { return refuse(.deny(.malformedHello), layer: .ip) }
            awaitMore(atLeast: count - beginning.passedOn.count)
        case .opaque:
            judgeOpaque()
        case .malformedHello:
            refuse(.deny(.malformedHello), layer: .tlsSNI)
        case .clientHello(let hello) where beginning.passedOn.isEmpty:
            beginning.hello = hello
            judge(hello)
        case .httpRequest where beginning.passedOn.isEmpty:
            forward()
        case .clientHello, .httpRequest, .malformedHTTP:
            // Also a request whose beginning was passed on: what would make it one stays here.
            refuse(.deny(.malformedHTTP), layer: .httpHost)
        }
    }

    /// What everything that the client sent so far says. Hardly ever was anything passed on; then nothing is copied.
    private func examine(_ peeked: [UInt8]) -> FirstBytes.Sighting {
        beginning.firstBytes.examine(beginning.passedOn.isEmpty ? peeked : beginning.passedOn + peeked)
    }

    /// Waits until `count` bytes are there: one wake-up instead of one a segment.
    private func awaitMore(atLeast count: Int) {
        setLowWater(min(count, Self.peekLimit))
        let limits = attachment.limits
        let isText = !course.isWebPort && !beginning.firstBytes.mayBecomeTLS
        switch phase {
        case .serverFirst where isText:
            arm(afterMilliseconds: limits.serverFirstMilliseconds) { $0.passOn() }
        case .firstBytes:
            let waited = (attachment.loop.now.nanoseconds - beginning.listeningSince.nanoseconds) / 1_000_000
            let left = max(limits.peekMilliseconds, waited + 1) - waited
            if isText, left > limits.serverFirstMilliseconds {
                arm(afterMilliseconds: limits.serverFirstMilliseconds) { $0.letServerSpeak() }
            } else {
                arm(afterMilliseconds: left) { $0.refuse(.deny(.deadline), layer: .ip) }
            }
        default:
            break
        }
    }

    /// A text protocol whose client waits for an answer in the middle of what might still become the first line of an
    /// HTTP request. As far as it goes it is no request; so it is passed on, and the line is watched until it is none
    /// for certain. The bytes that would make it one never leave.
    private func passOn() {
        guard case .serverFirst(let pump) = phase else { return }
        guard case .bytes(let bytes) = Sockets.peek(downstream, upTo: Self.peekLimit),
            case .needMore = examine(bytes)
        else { return lookAtFirstBytes() }
        // Behind the end of its first line there is a request for certain, and nothing of it leaves unjudged.
        guard !bytes.contains(where: { $0 == 0x0a || $0 == 0x0d }) else {
            return arm(afterMilliseconds: attachment.limits.peekMilliseconds) {
                $0.refuse(.deny(.deadline), layer: .ip)
            }
        }
        guard Sockets.take(downstream, exactly: bytes.count), pump.send(bytes) else { return abort() }
        beginning.passedOn += bytes
        setLowWater(1)
        armIdle(of: pump, since: attachment.loop.now)
        lookAtFirstBytes()
    }

    /// A client that ends its side before it says anything: on browsers' ports there is nothing to judge; elsewhere it
    /// may still be listening, and has nothing left to be judged.
    private func clientEndedSilently() {
        if case .serverFirst = phase { return relayServerFirst() }
        course.isWebPort ? abort() : letServerSpeak()
    }
}

// MARK: - Judging

extension Tunnel {
    private func judge(_ hello: ClientHello) {
        guard let destination = course.endpoint else { return abort() }
        var judgement: TunnelJudge.Judgement
        switch hello.serverName {
        case .malformed:
            return refuse(.deny(.malformedName), layer: .tlsSNI)
        case .absent:
            judgement = attachment.judge.judgeNameless(destination: destination, reason: .noSNI)
        case .name(let name):
            if case .name(let authority, _) = course {
                judgement = attachment.judge.judgeTunnelled(name: name, authority: authority, destination: destination)
            } else {
                judgement = attachment.judge.judge(name: name, destination: destination)
            }
            if hello.hasEncryptedClientHello, judgement.verdict.reason == .default, judgement.verdict.action == .deny {
                judgement.verdict.reason = .ech
            }
        }
        follow(judgement, layer: .tlsSNI)
    }

    private func judgeOpaque() {
        if case .serverFirst = phase { return relayServerFirst() }  // judged as opaque when it was dialled
        guard let destination = course.endpoint else { return abort() }
        guard !course.isWebPort else { return refuse(.deny(.opaqueOnWebPort), layer: .ip) }
        follow(judgeOpaque(destination), layer: .ip)
    }

    private func judgeOpaque(_ destination: Endpoint) -> TunnelJudge.Judgement {
        if case .name(let authority, _) = course {
            return attachment.judge.judgeTunnelled(name: authority, authority: authority, destination: destination)
        }
        return attachment.judge.judgeOpaque(destination: destination)
    }

    /// The client is silent: if the address and port may be reached by a protocol that shows no name, the server is
    /// dialled and may speak. The client's first bytes are judged when they come.
    private func letServerSpeak() {
        guard case .firstBytes = phase, let destination = course.endpoint else { return }
        let judgement = judgeOpaque(destination)
        guard judgement.verdict.action == .allow, case .dial(let endpoint) = judgement.route else {
            // No name opens a guard range.
            if judgement.verdict.reason == .guardRange { return refuse(judgement.verdict, layer: .ip) }
            // It may yet show a name that is allowed: a browser's early connection, a slow client.
            arm(afterMilliseconds: attachment.limits.peekMilliseconds) { $0.refuse(.deny(.deadline), layer: .ip) }
            return
        }
        admission = judgement.admission
        if upstream >= 0 {
            pumpServerFirst()
        } else {
            dial([endpoint]) { $0.pumpServerFirst() }
        }
    }

    private func pumpServerFirst() {
        guard let descriptor = releaseUpstream() else { return abort() }
        do {
            let pump = try ServerFirstPump(loop: attachment.loop, upstream: descriptor, downstream: downstream)
            pump.onEnd = { [weak self] end in end == .finished ? self?.end(with: []) : self?.abort() }
            phase = .serverFirst(pump)
            if let admission { recordAllowed(admission, layer: .ip) }
            armIdle(of: pump, since: attachment.loop.now)
            pump.start()
        } catch {
            Sockets.reset(descriptor)
            return abort()
        }
        // The server may have ended already, and the tunnel with it.
        guard case .serverFirst = phase else { return }
        lookAtFirstBytes()
    }

    private func armIdle(of pump: ServerFirstPump, since start: MonotonicTime) {
        let limit = attachment.limits.idleSeconds
        let silent = attachment.loop.now.seconds(since: start)
        guard silent < limit else { return abort() }
        arm(afterMilliseconds: (limit - silent) * 1_000) { $0.armIdle(of: pump, since: pump.lastProgress) }
    }

    /// The client's first bytes show no name: what the server was dialled by holds for them.
    private func relayServerFirst() {
        connectAndRelay(to: [])
    }

    /// Carries out a judgement.
    func follow(_ judgement: TunnelJudge.Judgement, layer: AuditEvent.Layer) {
        guard judgement.verdict.action == .allow else {
            guard !asksAboutFirstBytes(judgement, layer: layer) else { return }
            return refuse(judgement.verdict, layer: layer, name: judgement.name)
        }
        switch judgement.route {
        case .refuse:
            refuse(judgement.verdict, layer: layer, name: judgement.name)
        case .dial(let endpoint):
            recordAllowed(judgement.admission, layer: layer)
            connectAndRelay(to: [endpoint])
        case .resolve(let name, let port):
            resolveAgain(name, port: port, layer: layer)
        }
    }

    /// Has somebody asked about a connection whose first bytes name a host that no rule speaks of, and keeps them where they
    /// are. Only where the host was resolved to the address: elsewhere no answer would open it.
    private func asksAboutFirstBytes(_ judgement: TunnelJudge.Judgement, layer: AuditEvent.Layer) -> Bool {
        guard case .firstBytes = phase, let address = course.endpoint?.address else { return false }
        return asks(about: judgement.name, judgement.verdict, at: address) { tunnel, ending in
            switch ending {
            case .denied(let reason): tunnel.refuse(.deny(reason), layer: layer, name: judgement.name)
            case .judgeAgain:
                tunnel.awaitFirstBytes()
                tunnel.lookAtFirstBytes()
            }
        }
    }

    /// Has somebody asked about a name that no rule speaks of; `next` is called when that has come to an end, now or later.
    /// `false` when nobody is to be asked.
    func asks(
        about name: DomainName?,
        _ verdict: Verdict,
        at address: IPAddress? = nil,
        then next: @escaping (Tunnel, QuestionDesk.Ending) -> Void
    ) -> Bool {
        guard let subject = attachment.subject(of: verdict, about: name, port: course.port, at: address) else {
            return false
        }
        phase = .connecting
        disarm()
        attachment.desk?.ask(subject) { [weak self] ending in
            guard let self, case .connecting = phase else { return }
            next(self, ending)
        }
        return true
    }

    /// The pin is in grace: the address is old, the name is still good.
    private func resolveAgain(_ name: DomainName, port: UInt16, layer: AuditEvent.Layer) {
        if case .serverFirst = phase { return refuse(.deny(.nameAddressMismatch), layer: layer, name: name) }
        phase = .connecting
        disarm()
        attachment.resolve(name) { [weak self] result in
            guard let self, case .connecting = phase else { return }
            switch result {
            case .failure(let failure):
                refuse(failure.verdict, layer: layer, name: name)
            case .success(let addresses):
                let (judgement, endpoints) = attachment.judge.judgeResolved(
                    name: name,
                    port: port,
                    addresses: addresses
                )
                guard judgement.verdict.action == .allow else {
                    return refuse(judgement.verdict, layer: layer, name: name)
                }
                recordAllowed(judgement.admission, layer: layer)
                connectAndRelay(to: endpoints)
            }
        }
    }

    private func recordAllowed(_ admission: TunnelJudge.Admission, layer: AuditEvent.Layer) {
        self.admission = admission
        self.layer = layer
        if let name = admission.name, let endpoint = course.endpoint {
            attachment.pinner.renew(endpoint.address, for: name)
        }
        attachment.record(
            attachment.connectionEvent(
                .connectionAllowed,
                layer: layer,
                verdict: admission.verdict,
                name: admission.name,
                endpoint: course.endpoint
            )
        )
    }
}
