import EgressCore
import EgressPolicy
import NetPrimitives
public import Nftables
public import Reactor

/// Records what the kernel refused by itself, and closes the sandbox when it reports that somebody else changed its rules.
/// The packets arrive through NFLOG, rate-limited there; each carries the
/// name that its address was last resolved for, if there was one.
public final class RefusalReader: EventSource {
    private unowned let attachment: Attachment
    private let log: RefusalLog
    /// How many packets had been refused when the kernel's counter was last read.
    private var counted: UInt64 = 0
    /// What counters before this one had come to: with a table that is made again, another begins.
    private var countedBefore: UInt64 = 0
    /// Refused packets beyond the log's limit that were told of.
    private var told: UInt64 = 0
    private var timer: TimerToken?

    /// Reads `log`, which was opened inside the sandbox's namespace.
    public init(_ attachment: Attachment, log: RefusalLog) throws(SystemError) {
        self.attachment = attachment
        self.log = log
        super.init()
        try attachment.loop.register(self, descriptor: log.descriptor, interest: .readable)
    }

    /// Lets records come together a moment later, which costs less.
    public func collect() {
        log.collect()
    }

    /// Records what was refused before this call, of which the kernel may still hold the last part back. What is refused
    /// later is only counted.
    public func finish() {
        log.end()
        drain()
    }

    /// Records what was refused before this call and stops reading.
    public func stop() {
        if let timer { attachment.loop.cancel(timer) }
        timer = nil
        finish()
        if let refused = refusedCount() { tellUnrecorded(of: refused) }
        attachment.loop.deregister(self)
    }

    override public func handle(_ readiness: Readiness) {
        drain()
        armCount()
    }

    /// Looks once a second at how many packets were refused, while some are: the log's limit lets only part of a flood
    /// be recorded one by one.
    private func armCount() {
        guard timer == nil else { return }
        let next = attachment.loop.now.advanced(bySeconds: 1)
        timer = attachment.loop.schedule(at: next) { [weak self] in self?.count() }
    }

    private func count() {
        timer = nil
        // A listing that another change of the namespace's rules got in the way of is asked for again.
        guard let refused = refusedCount() else { return armCount() }
        drain()
        // What was refused a second ago has been told of by now, if it is at all.
        tellUnrecorded(of: counted)
        let isQuiet = refused == counted
        counted = refused
        if !isQuiet { armCount() }
    }

    private func refusedCount() -> UInt64? {
        guard let count = try? attachment.kernel.refusedCount() else { return nil }
        if countedBefore + count < counted { countedBefore = counted }
        return countedBefore + count
    }

    private func tellUnrecorded(of refused: UInt64) {
        guard refused > log.loggedCount + told else { return }
        recordLoss(of: refused - log.loggedCount - told)
        told = refused - log.loggedCount
    }

    private func recordLoss(of count: UInt64) {
        var event = attachment.event(.auditLost)
        event.layer = .ip
        event.count = count
        attachment.record(event)
    }

    private func drain() {
        while let packets = try? log.read(), !packets.isEmpty {
            packets.forEach(record)
        }
        if let change = log.takeRulesetChange() { attachment.close(because: change) }
        let lost = log.takeLostCount()
        if lost > 0 { recordLoss(of: lost) }
    }

    private func record(_ packet: RefusedPacket) {
        var event = attachment.event(.connectionDenied)
        event.layer = .ip
        event.verdict = verdict(on: packet)
        event.host = attachment.pinner.table.lastName(at: packet.destination)?.description
        event.address = packet.destination
        event.port = packet.destinationPort
        event.ipProtocol = packet.ipProtocol
        attachment.record(event)
    }

    /// The policy's own words for the refusal; where the kernel refused what the policy would have let be looked at
    /// (another transport, a packet outside any flow), the default did it.
    private func verdict(on packet: RefusedPacket) -> Verdict {
        guard !attachment.isPaused else { return .deny(.paused) }
        guard let transport = TransportProtocol(rawValue: packet.ipProtocol), let port = packet.destinationPort else {
            return .deny(.default)
        }
        let flow = Flow(name: nil, address: packet.destination, port: port, transport: transport)
        let verdict = attachment.policy.decide(flow, at: attachment.loop.wallTime())
        return verdict.action == .deny ? verdict : .deny(.default)
    }
}
