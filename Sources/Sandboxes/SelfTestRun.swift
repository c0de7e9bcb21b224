import EgressCore
import Glibc
import NetPrimitives
import Reactor

/// One run of the self-test: the probes on a thread of their own, which enters the namespace and may block; their
/// result and the kernel's reports of what it refused on the loop.
final class SelfTestRun {
    private static let patienceNanoseconds: UInt64 = 5_000_000_000

    private let loop: EventLoop
    private let probes: SelfTestProbes
    private var completion: ((SelfTestFailure?) -> Void)?
    private var awaited: Set<SelfTestProbes.Refusal>
    private var haveProbesPassed = false
    private var timer: TimerToken?

    init(loop: EventLoop, probes: SelfTestProbes, completion: @escaping (SelfTestFailure?) -> Void) {
        self.loop = loop
        self.probes = probes
        self.completion = completion
        self.awaited = Set(probes.refusals)
    }

    /// Begins; `tryAll` tries the probes in the sandbox's namespace and may block. The completion is called on the loop.
    func start(_ tryAll: @escaping SelfTestProbes.Attempt) {
        let run = LoopBound(self, to: loop)
        let probes = probes
        DetachedThread.start {
            var failure: SelfTestFailure?
            do {
                try tryAll(probes)
            } catch let error as SelfTestFailure {
                failure = error
            } catch {
                failure = .cannotProbe("\(error)")
            }
            let result = failure
            run.post { $0.probesEnded(result) }
        }
    }

    /// A record that the probes caused.
    func observe(_ event: AuditEvent) {
        guard event.kind == .connectionDenied, let address = event.address, let port = event.port,
            let transport = event.ipProtocol.flatMap(TransportProtocol.init(rawValue:))
        else { return }
        awaited.remove(.init(endpoint: Endpoint(address, port), transport: transport))
        finishIfComplete()
    }

    private func probesEnded(_ failure: SelfTestFailure?) {
        if let failure { return finish(failure) }
        haveProbesPassed = true
        timer = loop.schedule(at: loop.now.advanced(byNanoseconds: Self.patienceNanoseconds)) { [weak self] in
            guard let self, let missing = awaited.first else { return }
            timer = nil
            finish(.notRecorded(missing.endpoint, missing.transport))
        }
        finishIfComplete()
    }

    private func finishIfComplete() {
        if haveProbesPassed && awaited.isEmpty { finish(nil) }
    }

    private func finish(_ failure: SelfTestFailure?) {
        if let timer { loop.cancel(timer) }
        timer = nil
        let completion = completion
        self.completion = nil
        completion?(failure)
    }
}

/// A thread that nobody waits for.
enum DetachedThread {
    private final class Work {
        let body: @Sendable () -> Void
        init(_ body: @escaping @Sendable () -> Void) { self.body = body }
    }

    /// Runs `body` on a new thread. Aborts the process when the kernel has no thread left: nothing has been started.
    static func start(_ body: @escaping @Sendable () -> Void) {
        var thread = pthread_t()
        let work = Unmanaged.passRetained(Work(body)).toOpaque()
        let status = pthread_create(
            &thread,
            nil,
            { context in
                Unmanaged<Work>.fromOpaque(context!).takeRetainedValue().body()
                return nil
            },
            work
        )
        precondition(status == 0, "cannot start a thread: \(String(cString: strerror(status)))")
        pthread_detach(thread)
    }
}
