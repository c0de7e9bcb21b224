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

    /// Records what has arrived and stops reading.
    public func stop() {
        drain()
        attachment.loop.deregister(self)
    }

    override public func handle(_ readiness: Readiness) {
        drain()
    }

    private func drain() {
        while let packets = try? log.read(), !packets.isEmpty {
            packets.forEach(record)
        }
        if let change = log.takeRulesetChange() { attachment.close(because: change) }
        let lost = log.takeLostCount()
        guard lost > 0 else { return }
        var event = attachment.event(.auditLost)
        event.count = lost
        attachment.record(event)
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
