import NetPrimitives
import Reactor
import WireFormat

/// A UDP socket that programs send queries to. Answers leave from it as well, so that the kernel's redirect finds the
/// way back.
final class DNSDatagramSocket: EventSource {
    /// How many queries are taken in one turn, roughly; other sandboxes wait for theirs.
    private static let turn = 64

    private let loop: EventLoop
    private let resolver: DNSResolver
    private var descriptor: CInt
    /// Queries that wait for an answer from outside.
    private var pending: [UInt64: HandedQuery] = [:]
    private var nextPending: UInt64 = 0
    /// Answers that leave when the events at hand have been handled: one system call, and one waking, for many.
    private var replies: [(bytes: [UInt8], destination: Endpoint)] = []
    /// How many queries the kernel had lost when it was last asked. What comes too fast waits in the socket, up to a bound.
    private var lost: UInt32
    private var timer: TimerToken?

    init(_ descriptor: CInt, loop: EventLoop, resolver: DNSResolver) {
        self.descriptor = descriptor
        self.lost = Sockets.lostDatagrams(descriptor)
        self.loop = loop
        self.resolver = resolver
    }

    func close() {
        guard descriptor >= 0 else { return }
        tellOfLoss()
        loop.deregister(self)
        Sockets.close(descriptor)
        descriptor = -1
    }

    /// Stops receiving, and gives up the socket with the queries that are not answered.
    func release() -> (CInt, [HandedQuery]) {
        tellOfLoss()
        loop.deregister(self)
        defer { descriptor = -1 }
        return (descriptor, pending.sorted { $0.key < $1.key }.map(\.value))
    }

    /// A second after something came, asks the kernel for what it has lost, and frees what is of no use any more.
    private func watchLoss() {
        guard timer == nil else { return }
        timer = loop.schedule(at: loop.now.advanced(bySeconds: 1)) { [weak self] in
            self?.tellOfLoss()
            self?.resolver.forgetReadyAnswers()
        }
    }

    private func tellOfLoss() {
        if let timer { loop.cancel(timer) }
        timer = nil
        guard descriptor >= 0 else { return }
        let now = Sockets.lostDatagrams(descriptor)
        if now != lost { resolver.tellOfLostQueries(UInt64(now &- lost)) }
        lost = now
    }

    override func handle(_ readiness: Readiness) {
        watchLoss()
        let batch = loop.datagrams
        var taken = 0
        // What is left when the turn is over is told of again: the registration is level-triggered.
        while taken < Self.turn, descriptor >= 0 {
            switch batch.receive(descriptor) {
            case .wouldBlock:
                return
            case .failed:
                // An earlier answer could not be delivered; the error is taken with this call.
                taken += 1
            case .datagrams(let count):
                for index in 0..<count { answer(index, of: batch) }
                guard descriptor >= 0 else { return }
                batch.sendAnswers(descriptor)
                guard count == DatagramBatch.capacity else { return }
                taken += count
            }
        }
    }

    /// Answers one of the queries that were received together, with the others where that can be done at once.
    private func answer(_ index: Int, of batch: DatagramBatch) {
        let message = batch[index]
        guard message.count <= DatagramBatch.longestDatagram else { return resolver.refuseOversized() }
        switch resolver.receive(message, over: .udp) {
        case .answer(let reply):
            guard let reply else { return }
            batch.answer(index, with: reply) { $0.copyBytes(from: message[..<2]) }
        case .question(let question):
            guard let source = batch.source(of: index) else { return }
            ask(question, HandedQuery(message: Array(message), source: source))
        }
    }

    /// Answers a query that was received elsewhere.
    func answer(_ query: HandedQuery) {
        switch query.message.withUnsafeBytes({ resolver.receive($0, over: .udp) }) {
        case .answer(let reply):
            guard var reply, descriptor >= 0 else { return }
            reply.replaceSubrange(..<2, with: query.message[..<2])
            send(reply, to: query.source)
        case .question(let question):
            ask(question, query)
        }
    }

    private func ask(_ question: DNSResolver.Question, _ query: HandedQuery) {
        let number = nextPending
        nextPending += 1
        pending[number] = query
        resolver.ask(question) { [weak self] reply in
            guard let self, descriptor >= 0 else { return }
            pending[number] = nil
            if let reply { send(reply, to: query.source) }
        }
    }

    private func send(_ reply: [UInt8], to destination: Endpoint) {
        replies.append((reply, destination))
        guard replies.count == 1 else { return }
        loop.afterEvents { [weak self] in
            guard let self else { return }
            // A full buffer loses answers, as networks do; the program asks again.
            if descriptor >= 0 { loop.datagrams.send(replies, from: descriptor) }
            replies.removeAll(keepingCapacity: true)
        }
    }
}
