import Glibc
internal import NetPrimitives

/// What a relay did, and why it ended.
public struct RelayResult: Hashable, Sendable {
    /// Why a relay ended.
    public enum End: Hashable, Sendable {
        /// Both ends have ended their directions, and everything was delivered.
        case finished
        /// The downstream connection broke; the error number. Upstream saw a reset.
        case downstreamFailed(CInt)
        /// The upstream connection broke; the error number. Downstream saw a reset.
        case upstreamFailed(CInt)
        /// Nothing was said in either direction for too long. Both ends saw a reset.
        case idle
        /// ``Relay/abort()``. Both ends saw a reset.
        case aborted
    }

    /// Bytes that the kernel took for the upstream connection.
    public let bytesUp: UInt64
    /// Bytes that the kernel took for the downstream connection.
    public let bytesDown: UInt64
    /// Why it ended.
    public let end: End
    /// Upstream's socket, which becomes the receiver's, where it has not acknowledged everything when both directions have
    /// ended: only of a relay that keeps it (see its initialiser), and `nil` otherwise.
    public internal(set) var undelivered: CInt?
}

/// Carries bytes between two TCP connections, unread, until both directions have ended or one connection breaks.
///
/// A direction that cannot deliver stops reading, so what is too much stays in the kernel's buffers and the sender is
/// slowed by TCP. One that has ended is passed on as an end, and the other goes on; a connection that breaks is passed
/// on as a reset, since an end would make a truncated stream look whole.
///
/// Lives until it is closed, whoever else holds it.
public final class Relay: EventSource {
    // Small ones first: behind those that every source has they take no memory.
    /// Whether the relay is told when there is room again downstream. A client that takes all at once need not be asked.
    private var isToldOfRoom = true
    /// Whether upstream's socket is given away at the end, rather than closed, while something is on its way to it.
    private let keepsUndelivered: Bool
    private let idleSeconds: UInt32
    private let loop: EventLoop
    private var up: RelayDirection
    private var down: RelayDirection
    private var onClose: ((RelayResult) -> Void)?
    /// What is told of upstream; of downstream, the relay itself is.
    private var upstreamSide: UpstreamSide?
    private var idleTimer: TimerToken?
    private var lastProgress: MonotonicTime
    /// `nil` once it is open.
    public private(set) var gate: RelayGate?

    private var downstream: CInt { up.source }
    private var upstream: CInt { up.sink }

    /// Takes ownership of both descriptors: connected, non-blocking TCP sockets that are registered with no loop and
    /// have a receive low-water mark of 1. Upstream's becomes abortive (``Sockets/setAbortive(_:_:)``), so that a stream that is
    /// cut off looks so however the process ends; downstream's should be. The initial bytes are delivered before everything else. What downstream says
    /// passes as `gate` lets it; upstream's initial bytes are not shown to it. `onClose` is called once, when both
    /// descriptors are closed, by ``abort()`` as well. With `keepsUndelivered` upstream's may still be open then
    /// (``RelayResult/undelivered``): the kernel goes on sending what is left when a socket is closed in order.
    public init(
        loop: EventLoop,
        downstream: CInt,
        upstream: CInt,
        initialToDownstream: [UInt8],
        initialToUpstream: [UInt8] = [],
        gate: RelayGate? = nil,
        keepsUndelivered: Bool = false,
        idleSeconds: UInt64,
        onClose: @escaping (RelayResult) -> Void
    ) {
        self.loop = loop
        self.keepsUndelivered = keepsUndelivered
        self.idleSeconds = UInt32(clamping: idleSeconds)
        self.up = RelayDirection(from: downstream, to: upstream, initial: initialToUpstream)
        self.down = RelayDirection(from: upstream, to: downstream, initial: initialToDownstream)
        self.gate = gate
        self.onClose = onClose
        self.lastProgress = loop.now
    }

    /// Goes on with what another process began: `descriptors` are those that its ``release()`` gave, and become the
    /// relay's. There is a `gate` where the state has one.
    public init(
        loop: EventLoop,
        continuing state: RelayState,
        descriptors: [CInt],
        gate: RelayGate? = nil,
        keepsUndelivered: Bool = false,
        idleSeconds: UInt64,
        onClose: @escaping (RelayResult) -> Void
    ) {
        precondition(descriptors.count == state.descriptorCount && state.hasGate == (gate != nil))
        var rest = descriptors[...]
        func pipe(of direction: RelayState.Direction) -> SplicePipe? {
            guard direction.bytesInPipe > 0 else { return nil }
            let pipe = SplicePipe(readEnd: rest.removeFirst(), writeEnd: rest.removeFirst())
            loop.pipes.adopt(pipe)
            return pipe
        }
        self.loop = loop
        self.keepsUndelivered = keepsUndelivered
        self.idleSeconds = UInt32(clamping: idleSeconds)
        self.onClose = onClose
        self.lastProgress = loop.now
        self.gate = gate
        let downstream = rest.removeFirst()
        let upstream = rest.removeFirst()
        up = RelayDirection(from: downstream, to: upstream, continuing: state.up, pipe: pipe(of: state.up))
        down = RelayDirection(from: upstream, to: downstream, continuing: state.down, pipe: pipe(of: state.down))
    }

    deinit {
        precondition(onClose == nil, "a relay must be started, released or aborted")
    }

    /// Begins. `onClose` may be called before this returns.
    public func start() {
        let upstreamSide = UpstreamSide(self)
        self.upstreamSide = upstreamSide
        Sockets.setAbortive(upstream, true)
        up.setNoDelay()
        down.setNoDelay()
        do {
            try loop.register(self, descriptor: downstream, interest: Self.interest, edgeTriggered: true)
        } catch {
            return close(.downstreamFailed(error.errno))
        }
        do {
            try loop.register(upstreamSide, descriptor: upstream, interest: Self.interest, edgeTriggered: true)
        } catch {
            return close(.upstreamFailed(error.errno))
        }
        armIdleTimer(since: loop.now)
        // What waits to be read is told by the registration's first event; only our own bytes need a push.
        if up.holdsBytes || down.holdsBytes { advance() }
    }

    private static let interest: Interest = [.readable, .writable, .urgent]

    /// Begins with sockets that the loop watches already. The downstream one must have TCP_NODELAY and be watched for
    /// reading; nothing may have been sent through the upstream one, which must be watched for everything. Bytes may wait
    /// in either, whatever its source was told. `onClose` may be called before this returns.
    public func start(takingOver watched: (downstream: KeepingSource, upstream: KeepingSource)) {
        let upstreamSide = UpstreamSide(self)
        self.upstreamSide = upstreamSide
        Sockets.setAbortive(upstream, true)
        loop.handOn(watched.downstream, to: self)
        loop.handOn(watched.upstream, to: upstreamSide)
        down.hasNoDelay = true
        isToldOfRoom = false
        armIdleTimer(since: loop.now)
        up.sourceChanged(watched.downstream.told.union(.readable))
        down.sourceChanged(watched.upstream.told)
        advance()
    }

    /// Ends at once; both peers see a reset. Does nothing when it has ended.
    public func abort() {
        close(.aborted)
    }

    /// Gives everything up for another process to go on with, without a word to either peer; `onClose` is not called.
    /// The descriptors become the caller's. `nil` when there is nothing to go on with: then it can only be aborted.
    public func release() -> (state: RelayState, descriptors: [CInt])? {
        guard onClose != nil, let (upState, upPipe) = up.release(to: loop.pipes) else { return nil }
        guard let (downState, downPipe) = down.release(to: loop.pipes) else {
            upPipe?.close()
            return nil
        }
        onClose = nil
        if let idleTimer { loop.cancel(idleTimer) }
        idleTimer = nil
        loop.deregister(self)
        if let upstreamSide { loop.deregister(upstreamSide) }
        upstreamSide = nil
        up.drop(to: loop.pipes)
        down.drop(to: loop.pipes)
        let pipes = [upPipe, downPipe].compactMap(\.self).flatMap { [$0.readEnd, $0.writeEnd] }
        if let gate { setLowWater(1, of: gate) }
        let state = RelayState(up: upState, down: downState, gate: gate?.progress)
        return (state, [downstream, upstream] + pipes)
    }

    /// Bytes delivered so far, up and down.
    public var bytes: (up: UInt64, down: UInt64) { (up.delivered, down.delivered) }

    /// What has become of the downstream socket.
    public override func handle(_ readiness: Readiness) {
        up.sourceChanged(readiness)
        down.sinkChanged(readiness)
        takeTurn()
    }
}

// MARK: - Progress

extension Relay {
    fileprivate func handleUpstream(_ readiness: Readiness) {
        down.sourceChanged(readiness)
        up.sinkChanged(readiness)
        takeTurn()
    }

    /// However many long transfers there are, whoever else is told of something waits for a few of them only.
    private func takeTurn() {
        if loop.isAllowanceSpent, up.isLong || down.isLong {
            loop.runSoon(self)
        } else {
            advance()
        }
    }

    private func advance() {
        guard onClose != nil else { return }
        let before = up.delivered &+ down.delivered
        let wasShut = gate?.state == .shut
        // The first failure is the cause; what fails after it is only another sign of it.
        let upStep = pumpUp()
        // Whoever looked at what is said may have aborted it.
        guard onClose != nil else { return }
        switch upStep {
        case .sourceFailed(let code):
            return close(.downstreamFailed(code))
        case .sinkFailed(let code):
            down.salvage(loop)
            return close(.upstreamFailed(code))
        case .waits, .budgetSpent, .ended:
            break
        }
        let downStep = down.pump(loop, closesNext: up.hasEnded, seenBy: gate)
        switch downStep {
        case .sourceFailed(let code):
            return close(.upstreamFailed(code))
        case .sinkFailed(let code):
            if gate == nil { up.salvage(loop) }
            return close(.downstreamFailed(code))
        case .waits, .budgetSpent, .ended:
            break
        }
        if up.delivered &+ down.delivered != before { lastProgress = loop.now }
        // What waits before the gate is not told of again.
        if wasShut, gate?.state != .shut { return advance() }
        if down.waitsForRoom, !isToldOfRoom {
            isToldOfRoom = true
            loop.update(self, interest: Self.interest)
        }
        switch (upStep, downStep) {
        case (.ended, .ended): close(.finished)
        case (.budgetSpent, _): loop.runSoon(self)
        case (_, .budgetSpent): if let upstreamSide { loop.runSoon(upstreamSide) }
        default: break
        }
    }

    private func pumpUp() -> RelayDirection.Step {
        guard let gate else { return up.pump(loop, closesNext: down.hasEnded) }
        // Who has ended without an answer asks for nothing.
        if gate.state == .shut, down.hasEnded { gate.state = .open }
        while gate.state != .open {
            let step = up.pump(loop, closesNext: down.hasEnded, behind: gate)
            guard case .waits = step, gate.allowance == 0 else { return step }
            if let step = lookBehind(gate) { return step }
        }
        setLowWater(1, of: gate)
        self.gate = nil
        return up.pump(loop, closesNext: down.hasEnded)
    }

    /// Looks at what comes next downstream, if it is time to; `nil` when something may pass now.
    private func lookBehind(_ gate: RelayGate) -> RelayDirection.Step? {
        // While it is shut, all there is to know is whether there will be more.
        guard gate.state == .looking || up.isEnding else { return .waits }
        switch Sockets.peek(downstream, upTo: gate.state == .looking ? loop.scratch.count : 1, lentBy: loop) {
        case .wouldBlock:
            return .waits
        case .ended:
            gate.state = .open
            return nil
        case .failed(let code):
            return .sourceFailed(code)
        case .bytes(let bytes):
            return gate.state == .looking ? look(at: bytes, gate) : .waits
        }
    }

    private func look(at bytes: [UInt8], _ gate: RelayGate) -> RelayDirection.Step? {
        switch gate.downstreamSays(bytes) {
        case .waits(let count):
            // Cut off in the middle.
            if up.isEnding { return .sourceFailed(ECONNRESET) }
            setLowWater(count, of: gate)
            return .waits
        case .passes(let count):
            setLowWater(1, of: gate)
            gate.allowance = count
            return nil
        case .opens:
            gate.state = .open
            return nil
        case .refuses:
            return .waits
        }
    }

    /// Has the downstream socket reported readable only when `count` bytes wait.
    private func setLowWater(_ count: Int, of gate: RelayGate) {
        guard count != gate.lowWater else { return }
        gate.lowWater = count
        Sockets.setReceiveLowWater(downstream, count)
    }

    /// When it has been idle for too long, if nothing is said after `start`.
    private func idleDeadline(since start: MonotonicTime) -> MonotonicTime {
        start.advanced(bySeconds: UInt64(idleSeconds))
    }

    private func armIdleTimer(since start: MonotonicTime) {
        // A weak reference would take memory of its own as long as the relay lives; the timer ends with it.
        idleTimer = loop.schedule(at: idleDeadline(since: start)) { [self] in
            idleTimer = nil
            // Looked at when it would run out, rather than set anew at every byte.
            if idleDeadline(since: lastProgress) <= loop.now {
                close(.idle)
            } else {
                armIdleTimer(since: lastProgress)
            }
        }
    }

    private func close(_ end: RelayResult.End) {
        guard let onClose else { return }
        self.onClose = nil
        if let idleTimer { loop.cancel(idleTimer) }
        idleTimer = nil
        var result = RelayResult(bytesUp: up.delivered, bytesDown: down.delivered, end: end)
        if end == .finished, keepsUndelivered, Sockets.unsentBytes(upstream) > 0 { result.undelivered = upstream }
        loop.forget(self)
        if let upstreamSide { result.undelivered == nil ? loop.forget(upstreamSide) : loop.deregister(upstreamSide) }
        upstreamSide = nil
        up.drop(to: loop.pipes)
        down.drop(to: loop.pipes)
        if end == .finished {
            Sockets.closeInOrder(downstream)
            if result.undelivered == nil { Sockets.closeInOrder(upstream) }
        } else {
            Sockets.reset(downstream)
            Sockets.reset(upstream)
        }
        onClose(result)
    }
}

/// Tells a relay of its upstream socket.
private final class UpstreamSide: EventSource {
    private let relay: Relay

    init(_ relay: Relay) {
        self.relay = relay
    }

    override func handle(_ readiness: Readiness) {
        relay.handleUpstream(readiness)
    }
}
