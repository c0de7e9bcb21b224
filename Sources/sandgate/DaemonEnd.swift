import Control
import Glibc
import Logging
import NetPrimitives
import Sandboxes
import Synchronization
import UnixSignals

/// The end of a daemon, which a signal asks for. What it waits for, it does not wait for without end: a request may hang on a disk
/// as long as it likes.
///
///     signal ─▶ requests are answered ─▶ traffic handed over, journal ended ─▶ status 0
///                      │ 15 s                         ▲          │ 25 s
///                      └──────────────────────────────┴──────────┴─▶ said what was waited for, status 1
///
/// Either way the kernel's rules stay, and what was not answered was not promised.
final class DaemonEnd: Sendable {
    private struct State {
        var hasBegun = false
        /// Whether it is being finished, by whoever was first.
        var isFinishing = false
        var finish: (@Sendable () async -> Void)?
    }

    /// An element when the end has begun.
    let beginnings: AsyncStream<Void>

    private let hasBegun: AsyncStream<Void>.Continuation
    private let requests: RequestsUnderWay
    private let log: Logger
    private let state = Mutex(State())

    /// For how many seconds what hangs is waited for, in all. The unit's TimeoutStopSec is more.
    private static let patienceSeconds: UInt32 = 15
    /// For how many seconds after that the audit and the hand-over are waited for.
    private static let lastSeconds: UInt32 = 10
    /// How many requests are named.
    private static let namedRequests = 5

    init(requests: RequestsUnderWay, log: Logger) {
        self.requests = requests
        self.log = log
        (beginnings, hasBegun) = AsyncStream.makeStream(of: Void.self, bufferingPolicy: .bufferingNewest(1))
    }

    /// Says what is to be done last, from now on.
    func prepare(_ finish: @escaping @Sendable () async -> Void) {
        state.withLock { $0.finish = finish }
    }

    /// A signal has come; only the first counts.
    func begin(because signal: UnixSignal) {
        let isFirst = state.withLock { state in
            defer { state.hasBegun = true }
            return !state.hasBegun
        }
        guard isFirst else { return }
        log.info("stopping", metadata: ["signal": "\(signal)"])
        hasBegun.yield()
        // A thread of its own: threads that others share may all hang.
        DetachedThread.start { [self] in
            Self.wait(seconds: Self.patienceSeconds)
            Task { await finishAnyway() }
            Self.wait(seconds: Self.lastSeconds)
            log.error("ends without having waited for the audit trail, or for the traffic to be handed over")
            _exit(1)
        }
    }

    private static func wait(seconds: UInt32) {
        var left = seconds
        while left > 0 { left = sleep(left) }
    }

    /// Does what is to be done last, unless that is done already: then the process ends meanwhile.
    func finish() async {
        guard let finish = claim() else {
            try? await Task.sleep(for: .seconds(3_600))
            return
        }
        await finish()
    }

    private func finishAnyway() async {
        guard let finish = claim() else { return }
        let all = requests.descriptions
        let named = all.prefix(Self.namedRequests).joined(separator: ", ")
        let others = all.count > Self.namedRequests ? " and \(all.count - Self.namedRequests) more" : ""
        log.error(
            "ends without having waited any longer",
            metadata: ["for": all.isEmpty ? "what it was doing by itself" : "\(named)\(others)"]
        )
        await finish()
        _exit(1)
    }

    /// `nil` when somebody else was first.
    private func claim() -> (@Sendable () async -> Void)? {
        state.withLock { state in
            defer { state.isFinishing = true }
            return state.isFinishing ? nil : state.finish ?? {}
        }
    }
}
