public import WireFormat

/// Cleartext HTTP/1.1 between a sandbox and its servers, one exchange after the other: every request's head is parsed,
/// judged and written anew, so that what a server reads is what was judged. A pipelined request waits until the answer
/// before it is complete; so each answer belongs to a known request, and one connection may even serve requests for
/// different servers, as proxies' clients send them.
///
///     head ─judge─▶ admitted ──▶ request body ──▶ ─┐
///                   refused: 403, end              ├─ both complete ──▶ next head
///                               response   ◀───── ─┘
///                               101 ──▶ handed over: the rest is a WebSocket
///
/// A state machine without a socket: each event is a mutating method that returns what to do.
public struct HTTPForwarding {
    /// What the shell is to do, in this order.
    public enum Action: Hashable, Sendable {
        /// Judge this request; then call ``admit()`` or end the connection with a refusal.
        case judge(HTTPRequestHead)
        /// Write to the server.
        case sendUpstream([UInt8])
        /// Write to the client.
        case sendDownstream([UInt8])
        /// The server's connection cannot serve another exchange.
        case dropUpstream
        /// What was sent to the client goes out, then the connection ends.
        case finish
        /// Send what is queued and these bytes, then relay both ways without looking: the server accepted an upgrade.
        case handOver(toUpstream: [UInt8], toDownstream: [UInt8])
        /// The client's bytes are not a request that can be read in one way only.
        case refuseMalformed
        /// The server ended too early, or its bytes are not a response. `isUnanswered`: the client has had no byte of
        /// one but interim ones (1xx).
        case failUpstream(isUnanswered: Bool)
        /// The server ended before it said a word about this request. On a connection that has served before, it may just
        /// have tired of waiting; who asks it directly then asks again.
        case loseUpstream
    }

    private struct Exchange {
        var head: HTTPRequestHead
        var requestBody: HTTPBodyScanner
        var responseBody: HTTPBodyScanner?
        var isAnswered = false
        var hasInterimResponse = false
        var mustClose: Bool
    }

    private enum State {
        case awaitingHead
        case judging(HTTPRequestHead)
        case exchanging(Exchange)
        case over
    }

    private var state = State.awaitingHead
    private var fromDownstream: [UInt8] = []
    private var fromUpstream: [UInt8] = []
    private var parser = HTTPRequestHeadParser()
    private var downstreamEnded = false
    /// Whether the last request was sent whole and answered whole, if there was one. The server's connection can then be
    /// ended in order; else what was cut off must not look complete.
    public private(set) var isLastExchangeComplete = true

    /// A connection on which nothing has been read.
    public init() {}

    /// Whether more of the client's bytes are wanted now; what waits unread in the kernel is the back-pressure.
    public var wantsDownstream: Bool {
        switch state {
        case .awaitingHead: true
        case .exchanging(let exchange): !exchange.requestBody.isComplete
        case .judging, .over: false
        }
    }

    /// Whether the connection rests between two exchanges.
    public var isIdle: Bool {
        if case .awaitingHead = state { return fromDownstream.isEmpty }
        return false
    }
}

// MARK: - Events

extension HTTPForwarding {
    /// The client sent `bytes`.
    public mutating func receivedFromDownstream(_ bytes: [UInt8]) -> [Action] {
        fromDownstream += bytes
        return proceed()
    }

    /// The client ended its side.
    public mutating func downstreamEndedInput() -> [Action] {
        downstreamEnded = true
        return proceed()
    }

    /// The request that ``Action/judge(_:)`` named may pass, and its server is connected.
    public mutating func admit() -> [Action] {
        guard case .judging(let head) = state else { return [] }
        isLastExchangeComplete = false
        state = .exchanging(
            Exchange(head: head, requestBody: HTTPBodyScanner(head.framing), mustClose: !head.isPersistent)
        )
        return [.sendUpstream(head.forwarded())] + proceed()
    }

    /// The server sent `bytes`.
    public mutating func receivedFromUpstream(_ bytes: [UInt8]) -> [Action] {
        switch state {
        case .over:
            return []
        case .awaitingHead, .judging:
            // They answer no request, and must not be taken for the answer to the next, which may even go to another
            // server.
            return [.dropUpstream]
        case .exchanging:
            fromUpstream += bytes
            return proceed()
        }
    }

    /// The server ended its side; with `isBroken`, not in order (a reset), so that nothing counts as complete.
    public mutating func upstreamEnded(isBroken: Bool = false) -> [Action] {
        switch state {
        case .over:
            return []
        case .awaitingHead, .judging:
            return [.dropUpstream]
        case .exchanging(var exchange):
            state = .over
            if !isBroken { exchange.responseBody?.connectionEnded() }
            guard exchange.responseBody?.isComplete == true else {
                let isSilent = !exchange.isAnswered && !exchange.hasInterimResponse && fromUpstream.isEmpty
                return [isSilent ? .loseUpstream : .failUpstream(isUnanswered: !exchange.isAnswered)]
            }
            isLastExchangeComplete = exchange.requestBody.isComplete
            return [.dropUpstream, .finish]
        }
    }

    private mutating func proceed() -> [Action] {
        var actions: [Action] = []
        while let step = nextStep() { actions += step }
        return actions
    }

    /// What the bytes at hand allow; `nil` when more are needed.
    private mutating func nextStep() -> [Action]? {
        switch state {
        case .over, .judging: nil
        case .awaitingHead: readHead()
        case .exchanging(let exchange): continueExchange(exchange)
        }
    }
}

// MARK: - Requests

extension HTTPForwarding {
    private mutating func readHead() -> [Action]? {
        if fromDownstream.isEmpty {
            guard downstreamEnded else { return nil }
            state = .over
            return [.finish]
        }
        switch parser.parse(fromDownstream) {
        case .needMore:
            guard downstreamEnded else { return nil }
            state = .over
            return [.finish]
        case .head(let head) where head.method != "CONNECT":
            fromDownstream.removeFirst(head.length)
            parser = HTTPRequestHeadParser()
            state = .judging(head)
            return [.judge(head)]
        case .head, .malformed, .notHTTP, .http2Preface:
            state = .over
            return [.refuseMalformed]
        }
    }

    private mutating func continueExchange(_ current: Exchange) -> [Action]? {
        var exchange = current
        var actions: [Action] = []
        if !exchange.requestBody.isComplete, !fromDownstream.isEmpty {
            guard let count = try? exchange.requestBody.consume(fromDownstream) else {
                state = .over
                return [.refuseMalformed]
            }
            actions.append(.sendUpstream(Array(fromDownstream.prefix(count))))
            fromDownstream.removeFirst(count)
        }
        if !exchange.requestBody.isComplete, downstreamEnded {
            // The request can never be complete; nothing that was cut off may look whole to the server.
            state = .over
            return actions + [.dropUpstream, .finish]
        }
        if exchange.responseBody == nil {
            guard let answer = readResponseHead(&exchange) else {
                state = .exchanging(exchange)
                return actions.isEmpty ? nil : actions
            }
            return actions + answer
        }
        if var body = exchange.responseBody, !body.isComplete, !fromUpstream.isEmpty {
            guard let count = try? body.consume(fromUpstream) else {
                state = .over
                return actions + [.failUpstream(isUnanswered: false)]
            }
            actions.append(.sendDownstream(Array(fromUpstream.prefix(count))))
            fromUpstream.removeFirst(count)
            exchange.responseBody = body
        }
        guard exchange.responseBody?.isComplete == true else {
            state = .exchanging(exchange)
            return actions.isEmpty ? nil : actions
        }
        return actions + complete(exchange)
    }

    /// The response is complete. Another exchange may follow on the same connections only if nobody can be of two minds
    /// about where it begins: not when the server answered before it had all of the request (it might take the rest of
    /// the body for a request of its own), nor when it sent bytes that answer nothing.
    private mutating func complete(_ exchange: Exchange) -> [Action] {
        isLastExchangeComplete = exchange.requestBody.isComplete
        guard !exchange.mustClose, exchange.requestBody.isComplete, fromUpstream.isEmpty else {
            state = .over
            return [.dropUpstream, .finish]
        }
        state = .awaitingHead
        return []
    }
}

// MARK: - Responses

extension HTTPForwarding {
    /// Reads one response head when it is there; leaves the state as the actions need it.
    private mutating func readResponseHead(_ exchange: inout Exchange) -> [Action]? {
        guard !fromUpstream.isEmpty else { return nil }
        switch HTTPResponseHead.parse(fromUpstream, requestMethod: exchange.head.method) {
        case .needMore:
            return nil
        case .malformed:
            state = .over
            return [.failUpstream(isUnanswered: !exchange.isAnswered)]
        case .head(let head):
            let bytes = Array(fromUpstream.prefix(head.length))
            fromUpstream.removeFirst(head.length)
            if head.status == 101 { return acceptUpgrade(exchange, bytes) }
            if head.status >= 200 {
                exchange.isAnswered = true
                exchange.responseBody = HTTPBodyScanner(head.framing)
                exchange.mustClose = exchange.mustClose || !head.isPersistent
            } else {
                exchange.hasInterimResponse = true
            }
            state = .exchanging(exchange)
            return [.sendDownstream(bytes)]
        }
    }

    private mutating func acceptUpgrade(_ exchange: Exchange, _ head: [UInt8]) -> [Action] {
        state = .over
        guard exchange.head.asksForWebSocket, exchange.requestBody.isComplete else {
            return [.failUpstream(isUnanswered: true)]
        }
        defer {
            fromDownstream = []
            fromUpstream = []
        }
        return [.handOver(toUpstream: fromDownstream, toDownstream: head + fromUpstream)]
    }
}
