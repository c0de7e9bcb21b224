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

    /// What was read, or given at the start, and is not delivered.
    private enum Cargo {
        case nothing
        /// Copied, and delivered up to a place. A slice would take three words more, in every idle connection twice.
        case bytes([UInt8], from: UInt32)
        /// In a pipe, so many; none between one piece and the next.
        case pipe(SplicePipe, count: UInt32)
    }

    /// Bytes that the sink's kernel buffer took.
    private(set) var delivered: UInt64 = 0
    /// The socket that is read.
    let source: CInt
    /// The socket that is written to.
    let sink: CInt
    private var cargo: Cargo
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
        cargo = initial.isEmpty ? .nothing : .bytes(initial, from: 0)
    }

    /// Goes on with what another process began. `pipe` holds as many bytes as `state` says.
    init(from source: CInt, to sink: CInt, continuing state: RelayState.Direction, pipe: SplicePipe?) {
        self.init(from: source, to: sink, initial: state.held)
        if let pipe { cargo = .pipe(pipe, count: UInt32(clamping: state.bytesInPipe)) }
        delivered = state.delivered
        sourceHasEnded = state.sourceHasEnded
        sinkWasTold = state.sinkWasTold
    }

    /// What another process needs to go on; `nil` when the source is broken. The pipe, if it holds bytes, becomes the
    /// caller's.
    mutating func release(to pool: PipePool) -> (state: RelayState.Direction, pipe: SplicePipe?)? {
        guard !sourceIsBroken else { return nil }
        var state = RelayState.Direction(
            delivered: delivered,
            held: [],
            bytesInPipe: 0,
            sourceHasEnded: sourceHasEnded,
            sinkWasTold: sinkWasTold
        )
        switch cargo {
        case .bytes(let bytes, let start):
            state.held = Array(bytes[Int(start)...])
        case .pipe(let pipe, let count) where count > 0:
            state.bytesInPipe = Int(count)
            cargo = .nothing
            pool.forget(pipe)
            return (state, pipe)
        case .nothing, .pipe:
            break
        }
        return (state, nil)
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
    var holdsBytes: Bool {
        switch cargo {
        case .nothing: false
        case .bytes: true
        case .pipe(_, let count): count > 0
        }
    }

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
        givePipeBack(to: pool)
        if case .pipe(let pipe, _) = cargo { pool.discard(pipe) }
        cargo = .nothing
    }

    /// Where it holds nothing.
    private mutating func givePipeBack(to pool: PipePool) {
        guard case .pipe(let pipe, count: 0) = cargo else { return }
        cargo = .nothing
        pool.giveBack(pipe)
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
        if isLong, !mustCopy, witness == nil, let pipe = emptyPipe(of: loop.pipes) {
            return fill(pipe, upTo: min(budget, PipePool.pipeSize, allowance))
        }
        givePipeBack(to: loop.pipes)
        return fillByCopying(loop, upTo: allowance, seenBy: witness)
    }

    /// The one that it has, or else one of the pool's; `nil` when there is none.
    private func emptyPipe(of pool: PipePool) -> SplicePipe? {
        if case .pipe(let pipe, _) = cargo { pipe } else { pool.take() }
    }

    private mutating func fill(_ pipe: SplicePipe, upTo count: Int) -> CountResult {
        cargo = .pipe(pipe, count: 0)
        // The pipe is empty, so would-block speaks of the source.
        let result = Sockets.splice(from: source, to: pipe.writeEnd, upTo: count)
        if case .bytes(let count) = result { cargo = .pipe(pipe, count: UInt32(count)) }
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
        if sent < count { cargo = .bytes(Array(bytes[sent...]), from: 0) }
        return result
    }
}

// MARK: - Writing

extension RelayDirection {
    /// Writes what is held until it is delivered or the sink would block, which is noted.
    private mutating func deliver() -> Step? {
        while true {
            let result: CountResult
            switch cargo {
            case .bytes(let bytes, let start):
                beforeSending()
                result = Sockets.send(sink, bytes[Int(start)...])
            case .pipe(let pipe, let count) where count > 0:
                beforeSending()
                result = Sockets.splice(from: pipe.readEnd, to: sink, upTo: Int(count))
            case .nothing, .pipe:
                return nil
            }
            switch result {
            case .bytes(let count):
                delivered += UInt64(count)
                unload(UInt32(count))
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
    }

    /// Notes that the sink took so many bytes of what is held.
    private mutating func unload(_ count: UInt32) {
        switch cargo {
        case .nothing:
            break
        case .bytes(let bytes, let start):
            cargo = Int(start + count) < bytes.count ? .bytes(bytes, from: start + count) : .nothing
        case .pipe(let pipe, let held):
            cargo = .pipe(pipe, count: held - count)
        }
    }
}
