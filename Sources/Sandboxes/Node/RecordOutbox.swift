public import EgressCore
import NetPrimitives
import Reactor

/// Where a loop's records go.
public struct RecordOutlet: Sendable {
    /// Gets records, a turn of the loop at a time; never blocks.
    let deliver: @Sendable ([AuditEvent]) -> Void
    /// Counts a record that is not delivered.
    let miss: @Sendable (AuditEvent) -> Void
    /// How many records a second of each sandbox are taken now; `nil` for all there are.
    let share: @Sendable () -> Int?

    /// The same outlet, of which `observer` gets all as well, before it: what is delivered and what is not. It is called in
    /// the loop's thread, which it must not hold up.
    public func observed(by observer: @escaping @Sendable ([AuditEvent]) -> Void) -> RecordOutlet {
        RecordOutlet(
            deliver: { [deliver] events in
                observer(events)
                deliver(events)
            },
            miss: { [miss] event in
                observer([event])
                miss(event)
            },
            share: share
        )
    }
}

/// Records of one loop on their way to the journal: all of one turn in one piece. Confined to the loop's thread.
///
/// While the journal does not keep up, each sandbox has a share of its room, so that one that floods loses its own
/// records and nobody else's. How many it lost, an `audit.lost` record of that sandbox says once a second.
final class RecordOutbox {
    private let loop: EventLoop
    private let outlet: RecordOutlet
    private var events: [AuditEvent] = []
    private var share: Int?
    /// What each sandbox has recorded in this second, since there are shares.
    private var taken: [String: Int] = [:]
    private var lost: [String: UInt64] = [:]
    private var timer: TimerToken?

    init(loop: EventLoop, outlet: RecordOutlet) {
        self.loop = loop
        self.outlet = outlet
    }

    func add(_ event: AuditEvent) {
        if events.isEmpty { share = outlet.share() }
        if let share, !event.sandbox.isEmpty, !admits(event, share) {
            lost[event.sandbox, default: 0] += event.weightWhenLost
            return outlet.miss(event)
        }
        append(event)
    }

    private func append(_ event: AuditEvent) {
        events.append(event)
        guard events.count == 1 else { return }
        loop.schedule(at: loop.now) { [self] in
            outlet.deliver(events)
            events = []
        }
    }

    private func admits(_ event: AuditEvent, _ share: Int) -> Bool {
        if timer == nil {
            timer = loop.schedule(at: loop.now.advanced(bySeconds: 1)) { [weak self] in self?.beginSecond() }
        }
        let count = taken[event.sandbox, default: 0]
        guard count < share else { return false }
        taken[event.sandbox] = count + 1
        return true
    }

    private func beginSecond() {
        timer = nil
        taken = [:]
        for (sandbox, count) in lost {
            var event = AuditEvent(.auditLost, time: loop.wallTime(), sandbox: sandbox)
            event.count = count
            append(event)
        }
        lost = [:]
    }
}
