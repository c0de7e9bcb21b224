internal import NetPrimitives
internal import Reactor

/// One query on its way through the upstream servers.
public final class UpstreamQuery {
    /// Not used when the completion is gone: then the resolver may be too.
    private unowned let resolver: UpstreamResolver
    private let message: [UInt8]
    private var completion: ((Result<[UInt8], UpstreamError>) -> Void)?
    private var channel: AresChannel?
    private var round = 0
    /// The servers still to be asked in this round.
    private var remaining: ArraySlice<Int> = []
    /// Servers that answered with a failure; asked again they would say the same.
    private var failed: Set<Int> = []
    private var failureReply: [UInt8]?
    private var lastError = UpstreamError.timeout

    init(
        _ resolver: UpstreamResolver,
        _ message: [UInt8],
        _ completion: @escaping (Result<[UInt8], UpstreamError>) -> Void
    ) {
        self.resolver = resolver
        self.message = message
        self.completion = completion
    }

    /// Gives this query up; its completion is not called. Other queries are not disturbed.
    public func cancel() {
        guard completion != nil else { return }
        completion = nil
        resolver.forget(self)
        guard let channel = takeChannel() else { return }
        channel.cancel()
        resolver.giveBack(channel)
    }

    /// The resolver is being released: like ``cancel()``, but nothing is given back to it.
    func end() {
        completion = nil
        takeChannel()?.destroy()
    }

    /// Ends with `result`. The resolver may be gone afterwards.
    func finish(_ result: Result<[UInt8], UpstreamError>) {
        guard let completion else { return }
        cancel()
        completion(result)
    }

    @discardableResult
    private func takeChannel() -> AresChannel? {
        defer { channel = nil }
        return channel
    }
}

// MARK: - Asking

extension UpstreamQuery {
    /// Asks the next server, or ends: with a server's failure rather than with none's silence.
    func askNext() {
        guard let server = nextServer() else {
            return finishSoon(failureReply.map { .success($0) } ?? .failure(lastError))
        }
        do {
            let channel = try resolver.takeChannel(usesEDNS: hasBareOptions)
            self.channel = channel
            channel.ask(message, of: resolver.servers[server].endpoint) { self.answered($0, by: server) }
        } catch {
            finishSoon(.failure(error))
        }
    }

    private func nextServer() -> Int? {
        while remaining.isEmpty, round < resolver.tries {
            round += 1
            remaining = resolver.order()[...]
            if !failed.isEmpty { remaining.removeAll { failed.contains($0) } }
        }
        return remaining.popFirst()
    }

    private func answered(_ result: Result<[UInt8], UpstreamError>, by server: Int) {
        if let channel = takeChannel() { resolver.giveBack(channel) }
        switch result {
        case .success where !resolver.accepts():
            resolver.note(server, didAnswer: false)
            lastError = .unaccepted
        case .success(let reply):
            resolver.note(server, didAnswer: true)
            guard Self.isFailure(reply) else { return finish(result) }
            failed.insert(server)
            failureReply = reply
        case .failure(let error):
            resolver.note(server, didAnswer: false)
            lastError = error
        }
        askNext()
    }

    /// Never at once: this may be within ``UpstreamResolver/send(_:completion:)``.
    private func finishSoon(_ result: Result<[UInt8], UpstreamError>) {
        resolver.loop.schedule(at: resolver.loop.now) { self.finish(result) }
    }

    /// Whether another server may do better: SERVFAIL, NOTIMP, REFUSED (RFC 1035 4.1.1).
    private static func isFailure(_ reply: [UInt8]) -> Bool {
        guard reply.count > 3 else { return false }
        return switch reply[3] & 0x0f {
        case 2, 4, 5: true
        default: false
        }
    }

    /// Whether the message ends in an OPT record without options (RFC 6891 6.1.2), which is what c-ares takes a message
    /// with EDNS to look like.
    private var hasBareOptions: Bool {
        guard message.count >= 23, message[10] == 0, message[11] == 1 else { return false }
        let record = message.suffix(11)
        return record.prefix(3) == [0, 0, 41] && record.suffix(2) == [0, 0]
    }
}
