import EgressCore
import EgressPolicy
import NetPrimitives
import Reactor

/// The live datagram flows of a sandbox, and the bounds on them. Confined to the sandbox's event loop.
///
/// A program that opens a socket for each question (resolvers do) leaves flows behind that nobody says the end of. So
/// where there are too many the one that has been silent longest makes room, as in any router.
final class DatagramFlows {
    /// For datagrams on their way, one at a time. Made when the first one comes: most sandboxes send none.
    private(set) lazy var buffer = DatagramBuffer()

    private let loop: EventLoop
    private let limits: Attachment.Limits
    private var flows: [Endpoint: DatagramFlow] = [:]
    private var lastNumber: UInt32 = 0
    private var rate: RateLimit
    /// What is left to share out after every flow that there may be has its least.
    private var freeBytes: Int
    private var sweepTimer: TimerToken?

    /// The least and the most that may wait in one flow's socket, in bytes.
    private static let pendingBytes = 16 * 1024...416 * 1024

    init(loop: EventLoop, limits: Attachment.Limits) {
        self.loop = loop
        self.limits = limits
        self.rate = RateLimit(perSecond: limits.datagramFlowsPerSecond, burst: limits.datagramFlowsPerSecond * 2)
        let least = limits.maximumDatagramFlows * Self.pendingBytes.lowerBound
        self.freeBytes = max(limits.pendingDatagramBytes - least, 0)
    }

    var count: Int { flows.count }

    subscript(source: Endpoint) -> DatagramFlow? { flows[source] }

    /// All that live.
    var all: [DatagramFlow] { Array(flows.values) }

    /// A number that no other flow of the sandbox has.
    func takeNumber() -> UInt32 {
        lastNumber &+= 1
        return lastNumber
    }

    /// Whether another flow may be looked at now. What is beyond the limit is lost without a word.
    func admitsAnother() -> Bool { rate.admits(at: loop.now) }

    /// Makes room for another flow. Returns how many bytes may wait in its socket: many while there are few flows.
    func makeRoom() -> Int {
        while flows.count >= limits.maximumDatagramFlows,
            let silent = flows.values.min(by: { $0.lastActivity < $1.lastActivity })
        {
            silent.end(.flowLimit)
        }
        return min(Self.pendingBytes.lowerBound + freeBytes / 16, Self.pendingBytes.upperBound)
    }

    func add(_ flow: DatagramFlow) {
        flows[flow.source] = flow
        freeBytes -= flow.pendingBytes - Self.pendingBytes.lowerBound
        armSweep()
    }

    func remove(_ flow: DatagramFlow) {
        guard flows.removeValue(forKey: flow.source) != nil else { return }
        freeBytes += flow.pendingBytes - Self.pendingBytes.lowerBound
    }

    /// Ends what the policy in force no longer allows.
    func reconsider() {
        for flow in all { flow.reconsider() }
    }

    /// Ends all of them.
    func endAll() {
        for flow in all { flow.end() }
        if let sweepTimer { loop.cancel(sweepTimer) }
        sweepTimer = nil
    }

    private func armSweep() {
        guard sweepTimer == nil, !flows.isEmpty else { return }
        let shortest = min(limits.datagramIdleSeconds, limits.answeredDatagramIdleSeconds)
        let interval = max(shortest * 1_000_000_000 / 8, 100_000_000)
        sweepTimer = loop.schedule(at: loop.now.advanced(byNanoseconds: interval)) { [weak self] in self?.sweep() }
    }

    private func sweep() {
        sweepTimer = nil
        let now = loop.now
        for flow in all where flow.idleDeadline <= now { flow.end() }
        armSweep()
    }
}
