public import EgressCore
import EgressPolicy
import FoundationEssentials
public import Logging
import NetPrimitives
import Sandboxes
import Synchronization

/// Tells a server of each name that is refused in a sandbox, as OpenSandbox's egress container does: one request a refusal,
/// `POST` with `{"hostname": …, "timestamp": …, "source": "opensandbox-egress", "sandboxId": …}`.
///
///     loop's thread ─▶ queue of 256 ─▶ POST ─▶ below 500: the next one
///           │ full                       ▲ └─▶ 5xx, or none: after 1, 2 and 4 seconds again, then the next one
///           ▼                            └──────────┘
///         lost, said in the log
///
/// Whoever is refused never waits. The way out is the caller's: nothing of it is open to the sandbox, and no policy closes it.
public final class DeniedHostWebhook: Sendable {
    /// Connects to a host and port, and returns the socket.
    public typealias Connect = @Sendable (_ host: String, _ port: UInt16) async throws -> CInt

    /// What is to be told. It is put into words by who tells it, not by who was refused.
    private struct Refusal {
        let hostname: String
        let time: WallTime
    }

    private struct State {
        var waiting: [Refusal] = []
        /// Taken from those that wait, and not told yet.
        var isTelling = false
        var lost = 0
        var isStopping = false
        var hasEnded = false
        var task: Task<Void, Never>?
    }

    /// As many as there.
    static let capacity = 256
    private static let pauses: [Duration] = [.seconds(1), .seconds(2), .seconds(4)]

    private let endpoint: WebhookEndpoint
    private let post: SocketPost
    private let sandbox: String
    private let connect: Connect
    private let log: Logger
    private let state = Mutex(State())
    private let wakeUp = WakeUp()
    /// Signalled when nothing will be told any more.
    private let ended = WakeUp()

    /// A webhook that tells nothing yet. `sandbox` is the value of `sandboxId`.
    public init(_ endpoint: WebhookEndpoint, sandbox: String, log: Logger, connect: @escaping Connect) throws {
        self.endpoint = endpoint
        self.sandbox = sandbox
        self.log = log
        self.connect = connect
        post = try SocketPost(endpoint)
    }

    /// Begins to tell what is offered. To be called once.
    public func start() {
        let task = Task { await run() }
        state.withLock { $0.task = task }
    }

    /// Takes what is to be told of some events. Never waits.
    public func offer(_ events: [AuditEvent]) {
        let refusals = events.compactMap { event in
            Self.hostname(in: event).map { Refusal(hostname: $0, time: event.time) }
        }
        guard !refusals.isEmpty else { return }
        let (wasEmpty, isFirstLoss) = state.withLock { state in
            let wasEmpty = state.waiting.isEmpty
            let room = Self.capacity - state.waiting.count
            state.waiting += refusals.prefix(room)
            guard refusals.count > room else { return (wasEmpty, false) }
            defer { state.lost += refusals.count - room }
            return (wasEmpty, state.lost == 0)
        }
        if isFirstLoss {
            // Whoever reads the log may be slow as well.
            Keeper.deliver { [log, endpoint] in
                Task { log.warning("deny webhook: \(endpoint.origin) is too slow; refusals are not told") }
            }
        }
        // Nobody waits for more than the first one, and a flood is not to wake anybody each time.
        if wasEmpty { Keeper.deliver { [wakeUp] in wakeUp.signal() } }
    }

    /// Tells what is queued, for `patience` at most, and then nothing more.
    public func stop(within patience: Duration = .seconds(2)) async {
        let task = state.withLock { state in
            state.isStopping = true
            return state.task
        }
        guard let task else { return }
        wakeUp.signal()
        // Connecting to who does not answer cannot be ended before its time; nobody waits for it.
        await ended.wait(until: .now + patience) { !state.withLock { $0.hasEnded } }
        task.cancel()
        let left = state.withLock { $0.waiting.count + ($0.isTelling ? 1 : 0) }
        if left > 0 { log.warning("deny webhook: \(left) refusals were not told; they are in the audit trail") }
    }
}

// MARK: - What is told

extension DeniedHostWebhook {
    private static let reasonsOfQueries: Set<Reason> = [
        .rule, .default, .expiredRule, .guardRange, .malformedName, .dnsBudget,
    ]
    private static let reasonsOfConnections: Set<Reason> = [.rule, .default, .expiredRule]

    /// The name that an event says was refused: by the resolver, or in a connection that carries it though nobody asked the
    /// resolver. `nil` where nothing was refused, or not because of the name.
    static func hostname(in event: AuditEvent) -> String? {
        let reasons: Set<Reason>
        switch (event.kind, event.layer) {
        case (.dnsDenied, _): reasons = reasonsOfQueries
        case (.connectionDenied, .tlsSNI), (.connectionDenied, .httpHost), (.connectionDenied, .connect):
            reasons = reasonsOfConnections
        default: return nil
        }
        guard let reason = event.verdict?.reason, reasons.contains(reason) else { return nil }
        guard let host = event.host, host != ".", !host.isEmpty else { return nil }
        return host.hasSuffix(".") ? String(host.dropLast()) : host
    }

    /// The members in the order in which the original writes them, the time in whole seconds.
    func body(_ hostname: String, at time: WallTime) -> [UInt8] {
        let moment = Timestamp.text(of: time).prefix { $0 != "." } + "Z"
        let members = [
            ("hostname", hostname), ("timestamp", String(moment)), ("source", "opensandbox-egress"),
            ("sandboxId", sandbox),
        ]
        let encoder = JSONEncoder()
        encoder.outputFormatting = .withoutEscapingSlashes
        // A string always can be encoded.
        let texts = members.map { "\"\($0)\":" + String(decoding: (try? encoder.encode($1)) ?? Data(), as: UTF8.self) }
        return Array("{\(texts.joined(separator: ","))}".utf8)
    }
}

// MARK: - Telling

extension DeniedHostWebhook {
    private func run() async {
        while let refusal = await next() {
            await tell(body(refusal.hostname, at: refusal.time))
            state.withLock { $0.isTelling = false }
        }
        state.withLock { $0.hasEnded = true }
        ended.signal()
    }

    /// The oldest refusal that waits; `nil` when nothing will be told any more.
    private func next() async -> Refusal? {
        while !Task.isCancelled {
            let (refusal, isStopping, lost) = state.withLock { state in
                guard !state.waiting.isEmpty else {
                    defer { state.lost = 0 }
                    return (Refusal?.none, state.isStopping, state.lost)
                }
                state.isTelling = true
                return (state.waiting.removeFirst(), state.isStopping, 0)
            }
            if lost > 0 { log.warning("deny webhook: \(lost) refusals were not told; they are in the audit trail") }
            if refusal != nil || isStopping { return refusal }
            await wakeUp.wait()
        }
        return nil
    }

    private func tell(_ body: [UInt8]) async {
        var problem = ""
        for pause in Self.pauses.map(Optional.some) + [nil] {
            do {
                let descriptor = try await connect(endpoint.host, endpoint.port)
                let status = try await post.post(body, over: descriptor)
                if status < 300 { return }
                problem = "status \(status)"
                // Another try of the same would be answered the same.
                if status < 500 { break }
            } catch {
                problem = "\(error)"
            }
            guard !Task.isCancelled, let pause else { break }
            await wait(for: pause)
        }
        log.warning("deny webhook: \(endpoint.origin) was not told of a refusal: \(problem)")
    }

    /// Waits; no longer when the end comes meanwhile.
    private func wait(for duration: Duration) async {
        let wasStopping = state.withLock { $0.isStopping }
        await wakeUp.wait(until: .now + duration) { state.withLock { $0.isStopping } == wasStopping }
    }
}
