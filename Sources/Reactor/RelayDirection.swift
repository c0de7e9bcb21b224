import Glibc

/// One direction of a relay.
///
/// It begins by copying through the loop's scratch buffer, which is cheapest for short connections, and after the first
/// ``copyLimit`` bytes goes over to a pipe and splice(2), which is cheapest for long ones. It reads only when
/// everything read before is delivered, so it never holds more than one buffer or pipe.
struct RelayDirection {
    /// Why ``pump(_:)`` stopped.
    enum Step {
        /// There is nothing to read, or no room to write; an event will tell.
        case waits
        /// There may be more; others have their turn first.
        case budgetSpent
        /// The source has ended, everything is delivered and the sink was told.
        case ended
        /// Reading failed; the error number.
        case sourceFailed(CInt)
        /// Writing failed; the error number.
        case sinkFailed(CInt)
    }

    private static let copyLimit: UInt64 = 64 * 1024
    /// How many bytes may be read in one turn: two pipes full. With half a pipe, eight streams at once cost half as much
    /// CPU again, since whoever reads is woken at every piece; with more than this, other streams wait for nothing.
    private static let budget = 2 * PipePool.pipeSize

    /// Bytes that the sink's kernel buffer took.
    private(set) var delivered: UInt64 = 0

    private let source: CInt
    private let sink: CInt
    /// Bytes read by copying, or given at the start, and not yet delivered from ``heldStart`` on. A slice would take three
    /// words more, in every idle connection twice.
    private var held: [UInt8]
    private var heldStart: UInt32 = 0
    /// At most the size of a pipe.
    private var bytesInPipe: UInt32 = 0
    private var pipe: SplicePipe?
    private var sourceIsReady = false
    private var sinkIsReady = true
    /// The source has told of an end or an error, which waits behind what is still to be read.
    private var sourceIsEnding = false
    private var sourceHasEnded = false
    private var sourceIsBroken = false
    private var sinkWasTold = false
    /// splice(2) does not get past an out-of-band mark; recv(2) does, dropping the out-of-band byte as it did when the
    /// connection was peeked at.
    private var mustCopy = false
    /// Whether the sink sends small segments at once. It does with its first bytes in any case.
    var hasNoDelay = false
    private var hasSent = false

    init(from source: CInt, to sink: CInt, initial: [UInt8]) {
        self.source = source
        self.sink = sink
        self.held = initial
    }

    /// Goes on with what another process began. `pipe` holds as many bytes as `state` says.
    init(from source: CInt, to sink: CInt, continuing state: RelayState.Direction, pipe: SplicePipe?) {
        self.init(from: source, to: sink, initial: state.held)
        self.pipe = pipe
        bytesInPipe = UInt32(clamping: state.bytesInPipe)
        delivered = state.delivered
        sourceHasEnded = state.sourceHasEnded
        sinkWasTold = state.sinkWasTold
    }

    /// What another process needs to go on; `nil` when the source is broken. The pipe, if it holds bytes, becomes the
    /// caller's.
    mutating func release(to pool: PipePool) -> (state: RelayState.Direction, pipe: SplicePipe?)? {
        guard !sourceIsBroken else { return nil }
        let state = RelayState.Direction(
            delivered: delivered,
            held: Array(undelivered),
            bytesInPipe: Int(bytesInPipe),
            sourceHasEnded: sourceHasEnded,
            sinkWasTold: sinkWasTold
        )
        guard bytesInPipe > 0, let pipe else { return (state, nil) }
        self.pipe = nil
        bytesInPipe = 0
        pool.forget(pipe)
        return (state, pipe)
    }

    /// Whether so much has passed already that more will: it is spliced from now on.
    var isLong: Bool { delivered >= Self.copyLimit }

    /// Whether the source has told of an end or an error.
    var isEnding: Bool { sourceIsEnding }

    /// Whether the source has said all, and everything is delivered and passed on.
    var hasEnded: Bool { sinkWasTold }

    /// Whether the sink took less than there was.
    var waitsForRoom: Bool { !sinkIsReady }

    /// Has the sink send small segments at once.
    mutating func setNoDelay() {
        hasNoDelay = true
        Sockets.setNoDelay(sink)
    }

    /// Before each send: a small segment may be on its way from the second on, and the next would wait for its answer.
    private mutating func beforeSending() {
        if hasSent, !hasNoDelay { setNoDelay() }
        hasSent = true
    }

    /// Whether bytes wait for the sink.
    var holdsBytes: Bool { heldStart < held.count || bytesInPipe > 0 }

    private var undelivered: ArraySlice<UInt8> { held[Int(heldStart)...] }

    mutating func sourceChanged(_ readiness: Readiness) {
        if readiness.contains(.urgent) { mustCopy = true }
        if !readiness.isDisjoint(with: [.peerEnded, .hangup, .error]) { sourceIsEnding = true }
        if !readiness.isDisjoint(with: [.readable, .urgent, .peerEnded, .hangup, .error]) { sourceIsReady = true }
    }

    mutating func sinkChanged(_ readiness: Readiness) {
        if !readiness.isDisjoint(with: [.writable, .hangup, .error]) { sinkIsReady = true }
    }

    /// Moves bytes until one side would block or the budget is spent; it is, too, when the loop has to go on first. With
    /// `closesNext`, the sink is closed when this has ended, as the other direction has: that says it all. No more is read
    /// than `gate` lets pass; `witness` sees what is.
    mutating func pump(
        _ loop: EventLoop,
        closesNext: Bool = false,
        behind gate: RelayGate? = nil,
        seenBy witness: RelayGate? = nil
    ) -> Step {
        var budget = Self.budget
        while true {
            if loop.mustYield { return .budgetSpent }
            if holdsBytes {
                guard sinkIsReady else { return .waits }
                if let failure = deliver() { return failure }
                if holdsBytes { return .waits }
            }
            if sourceHasEnded {
                if !sinkWasTold {
                    sinkWasTold = true
                    if !closesNext { Sockets.endOutput(sink) }
                }
                givePipeBack(to: loop.pipes)
                return .ended
            }
            guard sourceIsReady else {
                givePipeBack(to: loop.pipes)
                return .waits
            }
            guard budget > 0 else { return .budgetSpent }
            let allowance = gate?.allowance ?? .max
            guard allowance > 0 else { return .waits }
            switch fill(loop, upTo: budget, allowance, seenBy: witness) {
            case .bytes(let count):
                budget -= count
                gate?.allowance -= count
                if isLong { loop.spendAllowance(count) }
            case .wouldBlock: sourceIsReady = false
            case .ended where sourceIsBroken: return .sourceFailed(ECONNRESET)
            case .ended: sourceHasEnded = true
            case .failed(let code): return .sourceFailed(code)
            }
        }
    }

    /// Writing to the source has failed. What it said before it broke (an HTTP server that answers early) is delivered
    /// as far as it goes at once; that is no more than a receive buffer. Its end is not passed on: the error that came
    /// before it was told to the writer, and is not told again.
    mutating func salvage(_ loop: EventLoop) {
        sourceIsBroken = true
        sourceIsEnding = true
        sourceIsReady = true
        while case .budgetSpent = pump(loop), !loop.mustYield {}
    }

    /// Ends the direction: what it holds is dropped.
    mutating func drop(to pool: PipePool) {
        hold([])
        guard let pipe else { return }
        if bytesInPipe == 0 { pool.giveBack(pipe) } else { pool.discard(pipe) }
        self.pipe = nil
        bytesInPipe = 0
    }

    private mutating func hold(_ bytes: [UInt8]) {
        held = bytes
        heldStart = 0
    }

    private mutating func givePipeBack(to pool: PipePool) {
        guard let pipe else { return }
        pool.giveBack(pipe)
        self.pipe = nil
    }
}

// MARK: - Reading

extension RelayDirection {
    /// Reads once, at most `budget` where nothing smaller bounds it, and never more than `allowance`. Nothing is held before.
    private mutating func fill(
        _ loop: EventLoop,
        upTo budget: Int,
        _ allowance: Int,
        seenBy witness: RelayGate?
    ) -> CountResult {
        if isLong, !mustCopy, witness == nil {
            if pipe == nil { pipe = loop.pipes.take() }
            if let pipe { return fill(pipe, upTo: min(budget, PipePool.pipeSize, allowance)) }
        }
        return fillByCopying(loop, upTo: allowance, seenBy: witness)
    }

    private mutating func fill(_ pipe: SplicePipe, upTo count: Int) -> CountResult {
        // The pipe is empty, so would-block speaks of the source.
        let result = Sockets.splice(from: source, to: pipe.writeEnd, upTo: count)
        if case .bytes(let count) = result { bytesInPipe = UInt32(count) }
        return result
    }

    /// Sends straight from the scratch memory; only what the sink does not take is copied again and held.
    private mutating func fillByCopying(_ loop: EventLoop, upTo allowance: Int, seenBy witness: RelayGate?)
        -> CountResult
    {
        let scratch = UnsafeMutableRawBufferPointer(rebasing: loop.scratch.prefix(allowance))
        let result = Sockets.receive(source, into: scratch)
        guard case .bytes(let count) = result else { return result }
        // Less than there was room for: nothing is left, and what comes from now on is told by an event. Not so when
        // an end has been told of already, or when a mark stopped the reading.
        if count < scratch.count, !sourceIsEnding, !mustCopy { sourceIsReady = false }
        let bytes = UnsafeRawBufferPointer(rebasing: scratch[..<count])
        if let witness, witness.state == .shut { witness.upstreamSaid(bytes) }
        var sent = 0
        let sends = sinkIsReady && !loop.mustYield
        if sends { beforeSending() }
        if sends, case .bytes(let taken) = Sockets.send(sink, bytes) {
            sent = taken
            delivered += UInt64(taken)
        }
        // A sink that is full or broken says so again when the rest is delivered.
        if sent < count { hold(Array(bytes[sent...])) }
        return result
    }
}

// MARK: - Writing

extension RelayDirection {
    /// Writes what is held until it is delivered or the sink would block, which clears ``sinkIsReady``.
    private mutating func deliver() -> Step? {
        while holdsBytes {
            beforeSending()
            let result =
                if let pipe, bytesInPipe > 0 {
                    Sockets.splice(from: pipe.readEnd, to: sink, upTo: Int(bytesInPipe))
                } else {
                    Sockets.send(sink, undelivered)
                }
            switch result {
            case .bytes(let count):
                delivered += UInt64(count)
                if bytesInPipe > 0 { bytesInPipe -= UInt32(count) } else { heldStart += UInt32(count) }
            case .wouldBlock:
                sinkIsReady = false
                return nil
            case .ended:
                // splice(2) from a pipe that is not empty moves something or fails.
                return .sinkFailed(EPIPE)
            case .failed(let code):
                return .sinkFailed(code)
            }
        }
        hold([])
        return nil
    }
}
