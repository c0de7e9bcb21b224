internal import CLinux
import Glibc
public import NetPrimitives

/// An epoll loop: descriptors, timers and messages from other threads, all served by one thread.
///
///     wait ─▶ due timers that come before events ─▶ events of descriptors ─▶ due timers ─▶ what was put off ─▶
///     sources that asked to be called again ─▶ wait
///
/// Long transfers have an allowance in each of the two places where they move bytes. When it is spent, the others stand in
/// line until the next turn, so that a turn takes a few milliseconds whatever there is to move.
///
/// Everything but ``mailbox`` is confined to the thread that runs the loop.
public final class EventLoop {
    /// A registration's slot, and its generation: a slot is used again, a pair never is. Both are in epoll's user
    /// datum, so an event that was already fetched when its source was deregistered finds nobody.
    struct Registration: Hashable {
        var slot: UInt32
        var generation: UInt32

        var datum: UInt64 { UInt64(generation) << 32 | UInt64(slot) }
    }

    private struct Slot {
        var generation: UInt32 = 0
        var source: EventSource?
        var descriptor: CInt = -1
        var isEdgeTriggered = false
        var isQueued = false
    }

    private static let batchSize = 256
    /// Bytes. Some two milliseconds for a core.
    private static let allowance = 2 * 1024 * 1024
    private static let scratchSize = 64 * 1024

    /// The time of the current wake-up; read once per wake-up, and again before timers run.
    public private(set) var now: MonotonicTime
    /// How other threads reach the loop.
    public let mailbox: Mailbox
    /// Whether ``run()`` is on the stack.
    public private(set) var isRunning = false
    /// How many sources have something to do in this turn; a timer that sees 0 knows that nothing waits.
    public private(set) var eventCount = 0
    /// The number of this turn: those that follow each other have numbers that do.
    public private(set) var turn: UInt64 = 0

    /// How many bytes of long transfers may still be moved before others have had their turn.
    private var allowanceLeft = 0

    /// Lent to whoever handles an event, for bytes that do not outlive the call.
    let scratch: UnsafeMutableRawBufferPointer
    /// Lent to whoever answers datagrams, for as long as it handles an event.
    public private(set) lazy var datagrams = DatagramBatch()
    /// Pipes for relays.
    let pipes = PipePool()

    private let epoll: CInt
    private let events: UnsafeMutablePointer<epoll_event>
    private var slots: [Slot] = []
    private var freeSlots: [UInt32] = []
    private var timers = TimerHeap()
    private var timersBeforeEvents = TimerHeap()
    private var soon: [Registration] = []
    private var putOff: [() -> Void] = []
    private var isStopping = false

    /// What sockets to the outside have, where they share a namespace with those who are kept from it.
    public let upstreamPass: UpstreamPass?

    /// A loop with nothing to do. With `upstreamPass`, every socket that is opened to the outside on this loop has it.
    public init(upstreamPass: UpstreamPass? = nil) throws(SystemError) {
        self.upstreamPass = upstreamPass
        let epoll = epoll_create1(CInt(EPOLL_CLOEXEC))
        if epoll < 0 { throw .current("create", "an epoll descriptor") }
        do {
            mailbox = try Mailbox()
        } catch {
            _ = close(epoll)
            throw error
        }
        self.epoll = epoll
        events = .allocate(capacity: Self.batchSize)
        scratch = .allocate(byteCount: Self.scratchSize, alignment: 4096)
        now = .current
        try register(MailboxReader(self), descriptor: mailbox.descriptor, interest: .readable)
    }

    deinit {
        mailbox.close()
        for slot in slots { slot.source?.registration = nil }
        _ = close(epoll)
        events.deallocate()
        scratch.deallocate()
    }

    /// The civil time now.
    public func wallTime() -> WallTime { .current }
}

// MARK: - Descriptors

extension EventLoop {
    /// Has `source` told of `descriptor`, which must be non-blocking and stays the caller's. The loop holds the source
    /// until it is deregistered, which must happen before the descriptor is closed. Traps when `source` is registered.
    ///
    /// Edge-triggered, the source is told once of what changed and has to read or write until it would block, or ask
    /// for another turn with ``runSoon(_:)``.
    public func register(
        _ source: EventSource,
        descriptor: CInt,
        interest: Interest,
        edgeTriggered: Bool = false
    ) throws(SystemError) {
        precondition(source.registration == nil, "an EventSource has at most one registration")
        let index = freeSlots.popLast() ?? UInt32(slots.count)
        if index == slots.count { slots.append(Slot()) }
        let registration = Registration(slot: index, generation: slots[Int(index)].generation)
        let mask = interest.mask | (edgeTriggered ? EPOLLET.rawValue : 0)
        guard clinux_epoll_ctl(epoll, EPOLL_CTL_ADD, descriptor, mask, registration.datum) == 0 else {
            let error = SystemError.current("watch", "descriptor \(descriptor)")
            precondition(error.errno != EBADF, "a closed descriptor was to be watched")
            freeSlots.append(index)
            throw error
        }
        slots[Int(index)].source = source
        slots[Int(index)].descriptor = descriptor
        slots[Int(index)].isEdgeTriggered = edgeTriggered
        source.registration = registration
    }

    /// Changes what `source`, which must be registered, is told of. Edge-triggered, what is ready now is told again.
    public func update(_ source: EventSource, interest: Interest) {
        guard let registration = source.registration else { preconditionFailure("the EventSource is not registered") }
        let slot = slots[Int(registration.slot)]
        let mask = interest.mask | (slot.isEdgeTriggered ? EPOLLET.rawValue : 0)
        let result = clinux_epoll_ctl(epoll, EPOLL_CTL_MOD, slot.descriptor, mask, registration.datum)
        precondition(result == 0, "a descriptor was closed before its source was deregistered")
    }

    /// Ends the registration of `source`: it is told of nothing more, not even of events already fetched. Does nothing
    /// when there is none.
    public func deregister(_ source: EventSource) {
        guard let registration = source.registration else { return }
        let index = Int(registration.slot)
        precondition(slots[index].source === source, "the EventSource is registered with another loop")
        let result = clinux_epoll_ctl(epoll, EPOLL_CTL_DEL, slots[index].descriptor, 0, 0)
        precondition(result == 0, "a descriptor was closed before its source was deregistered")
        release(source, registration)
    }

    /// Ends the registration of `source`, which must be edge-triggered and whose descriptor is closed next: the kernel takes
    /// it off its list with the last descriptor of it, so it need not be asked to. Where a process that was just forked
    /// still has one, an event or two find nobody.
    public func forget(_ source: EventSource) {
        guard let registration = source.registration else { return }
        let index = Int(registration.slot)
        precondition(slots[index].source === source, "the EventSource is registered with another loop")
        precondition(slots[index].isEdgeTriggered, "what is told again and again has to be taken off the list")
        release(source, registration)
    }

    private func release(_ source: EventSource, _ registration: Registration) {
        let index = Int(registration.slot)
        source.registration = nil
        slots[index].source = nil
        slots[index].descriptor = -1
        slots[index].isQueued = false
        slots[index].generation &+= 1
        freeSlots.append(registration.slot)
    }

    /// Has `heir`, which must be registered with no loop, told from now on of what `source` was told of. Edge-triggered,
    /// nothing is told again: what `source` has heard is for it to pass on. Events already fetched go to the heir.
    public func handOn(_ source: EventSource, to heir: EventSource) {
        guard let registration = source.registration else { preconditionFailure("the EventSource is not registered") }
        let index = Int(registration.slot)
        precondition(slots[index].source === source, "the EventSource is registered with another loop")
        precondition(heir.registration == nil, "an EventSource has at most one registration")
        source.registration = nil
        heir.registration = registration
        slots[index].source = heir
        slots[index].isQueued = false
    }

    /// Gives `source`, which must be registered, another turn after every other one had its own: its `handle` is called
    /// with empty readiness. For edge-triggered sources that stop before the descriptor would block.
    public func runSoon(_ source: EventSource) {
        guard let registration = source.registration else { preconditionFailure("the EventSource is not registered") }
        guard !slots[Int(registration.slot)].isQueued else { return }
        slots[Int(registration.slot)].isQueued = true
        soon.append(registration)
    }

    /// Whether long transfers have moved enough for now; who has more to move asks for another turn.
    var isAllowanceSpent: Bool { allowanceLeft <= 0 }

    /// Whether a timer that comes before events is due by now. Who is in the middle of an event and about to pass on what
    /// was just read asks for another turn instead: the thread may have been frozen for long between two instructions.
    public var mustYield: Bool {
        // The clock is read where there is such a timer, and nowhere else.
        guard let earliest = timersBeforeEvents.earliest else { return false }
        return earliest <= .current
    }

    /// Counts bytes that a long transfer has moved.
    func spendAllowance(_ count: Int) {
        allowanceLeft -= count
    }
}

// MARK: - Timers

extension EventLoop {
    /// Runs `action` once, in the loop's thread, as soon after `deadline` as the loop gets to it; never within this
    /// call, and at the next turn when the deadline has passed. Resolution: a millisecond.
    @discardableResult
    public func schedule(
        at deadline: MonotonicTime,
        _ order: TimerOrder = .afterEvents,
        _ action: @escaping () -> Void
    ) -> TimerToken {
        switch order {
        case .afterEvents:
            return timers.add(at: deadline, action)
        case .beforeEvents:
            var token = timersBeforeEvents.add(at: deadline, action)
            token.order = order
            return token
        }
    }

    /// Cancels a timer. Does nothing when it has run or was cancelled.
    public func cancel(_ token: TimerToken) {
        switch token.order {
        case .afterEvents: timers.cancel(token)
        case .beforeEvents: timersBeforeEvents.cancel(token)
        }
    }
}

// MARK: - Putting off

extension EventLoop {
    /// Runs `action` once, when everybody who has something to do at this moment has been called: for what costs less done
    /// for many together, such as a message to the kernel. The loop does not wait for anything before.
    public func afterEvents(_ action: @escaping () -> Void) {
        putOff.append(action)
    }

    private func runPutOff() {
        // What is put off meanwhile has its turn here too.
        var next = 0
        while next < putOff.count {
            putOff[next]()
            next += 1
        }
        putOff.removeAll(keepingCapacity: true)
    }
}

// MARK: - Running

extension EventLoop {
    /// Serves until ``stop()``. May be called again afterwards. SIGPIPE is blocked in this thread meanwhile: `splice(2)`
    /// has no flag to keep it from being sent.
    public func run() throws(SystemError) {
        precondition(!isRunning, "the loop is running")
        let mask = SignalMask.blockPipe()
        isRunning = true
        defer {
            isRunning = false
            isStopping = false
            mask.restore()
        }
        while !isStopping {
            let count = try wait()
            now = .current
            eventCount = count + soon.count
            turn &+= 1
            allowanceLeft = Self.allowance
            for index in 0..<count {
                runDueTimersBeforeEvents()
                deliver(Readiness(mask: events[index].events), to: clinux_event_datum(events + index))
            }
            runDueTimersBeforeEvents()
            runDueTimers()
            runPutOff()
            runAgain()
            runPutOff()
        }
    }

    /// Has ``run()`` return when the current turn is over. In the loop's thread; from others, through ``mailbox``.
    public func stop() {
        isStopping = true
    }

    private func wait() throws(SystemError) -> Int {
        let count = epoll_wait(epoll, events, CInt(Self.batchSize), timeoutMilliseconds())
        if count >= 0 { return Int(count) }
        if errno == EINTR { return 0 }
        throw .current("wait", "for events")
    }

    /// Rounded up: a timer never runs before its time, nor does the loop spin for the rest of a millisecond.
    private func timeoutMilliseconds() -> CInt {
        guard soon.isEmpty, putOff.isEmpty else { return 0 }
        guard let earliest = earliestDeadline else { return -1 }
        let current = MonotonicTime.current
        guard earliest > current else { return 0 }
        let milliseconds = (earliest.nanoseconds - current.nanoseconds - 1) / 1_000_000 + 1
        return CInt(clamping: milliseconds)
    }

    private var earliestDeadline: MonotonicTime? {
        guard let first = timersBeforeEvents.earliest else { return timers.earliest }
        guard let other = timers.earliest else { return first }
        return min(first, other)
    }

    private func deliver(_ readiness: Readiness, to datum: UInt64) {
        let index = Int(UInt32(truncatingIfNeeded: datum))
        guard slots[index].generation == UInt32(datum >> 32), let source = slots[index].source else { return }
        source.handle(readiness)
    }

    private func runDueTimers() {
        guard let earliest = timers.earliest else { return }
        now = .current
        guard earliest <= now else { return }
        // Timers that are added meanwhile wait for the next turn, so that descriptors get theirs.
        let limit = timers.sequenceNow
        while let action = timers.popDue(at: now, addedBefore: limit) { action() }
    }

    /// Before every event: the thread may have been frozen since the one before.
    private func runDueTimersBeforeEvents() {
        guard mustYield else { return }
        now = .current
        let limit = timersBeforeEvents.sequenceNow
        while let action = timersBeforeEvents.popDue(at: now, addedBefore: limit) { action() }
    }

    private func runAgain() {
        guard !soon.isEmpty else { return }
        allowanceLeft = Self.allowance
        let turn = soon
        soon.removeAll(keepingCapacity: true)
        for (position, registration) in turn.enumerated() {
            // Those who have waited longest are the first in the next turn.
            guard !isAllowanceSpent else { return soon.insert(contentsOf: turn[position...], at: 0) }
            runDueTimersBeforeEvents()
            let index = Int(registration.slot)
            guard slots[index].generation == registration.generation, slots[index].isQueued else { continue }
            slots[index].isQueued = false
            slots[index].source?.handle([])
        }
    }
}

/// Runs what other threads post.
private final class MailboxReader: EventSource {
    private unowned let loop: EventLoop

    init(_ loop: EventLoop) {
        self.loop = loop
    }

    override func handle(_ readiness: Readiness) {
        for message in loop.mailbox.take() { message() }
    }
}
