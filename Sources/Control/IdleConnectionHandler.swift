import NIOCore
import NIOHTTPTypes

/// Closes a connection on which nothing is asked for a while.
///
/// The while is counted in ticks of the event loop. By the clock, a process that was frozen (a paused container) would find
/// every connection silent for too long when it goes on, though nobody could have been heard; requests would be lost that
/// clients send then on connections that they have kept. A pause counts as one tick, however long it was.
final class IdleConnectionHandler: ChannelDuplexHandler, RemovableChannelHandler {
    typealias InboundIn = HTTPRequestPart
    typealias InboundOut = HTTPRequestPart
    typealias OutboundIn = HTTPResponsePart
    typealias OutboundOut = HTTPResponsePart

    private var idleness: Idleness
    private let tick: TimeAmount
    private var ticking: RepeatedTask?

    /// - Parameters:
    ///   - tick: How often it is looked at.
    ///   - limit: So many ticks pass at least, and one more at most.
    init(tick: TimeAmount, limit: Int) {
        self.tick = tick
        idleness = Idleness(limit: limit)
    }

    func handlerAdded(context: ChannelHandlerContext) {
        let bound = NIOLoopBound((self, context), eventLoop: context.eventLoop)
        ticking = context.eventLoop.scheduleRepeatedTask(initialDelay: tick, delay: tick) { _ in
            let (handler, context) = bound.value
            if handler.idleness.tick() == .close { context.close(promise: nil) }
        }
    }

    func handlerRemoved(context: ChannelHandlerContext) {
        ticking?.cancel()
        ticking = nil
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        idleness.read(unwrapInboundIn(data))
        context.fireChannelRead(data)
    }

    func write(context: ChannelHandlerContext, data: NIOAny, promise: EventLoopPromise<Void>?) {
        if case .end = unwrapOutboundIn(data) { idleness.answered() }
        context.write(data, promise: promise)
    }
}

/// How long a connection's client has asked for nothing. A request whose end does not come is none.
struct Idleness {
    /// What a tick asks for.
    enum Action: Equatable {
        case wait, close
    }

    private let limit: Int
    private var ticks = 0
    /// Whole requests, less answers that have ended: an answer may come before the request's end.
    private var unanswered = 0

    /// One that may last for so many ticks.
    init(limit: Int) {
        self.limit = limit
    }

    /// Part of a request has come.
    mutating func read(_ part: HTTPRequestPart) {
        ticks = 0
        if case .end = part { unanswered += 1 }
    }

    /// An answer has ended.
    mutating func answered() {
        ticks = 0
        unanswered -= 1
    }

    /// A tick has passed.
    mutating func tick() -> Action {
        guard unanswered <= 0 else { return .wait }
        ticks += 1
        return ticks > limit ? .close : .wait
    }
}
