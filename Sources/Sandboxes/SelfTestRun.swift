import EgressCore
import EgressPolicy
import Glibc
import NetPrimitives
import Reactor

/// One run of the self-test: the probes on a thread of their own, which enters the namespace and may block; their
/// result and the kernel's reports of what it refused on the loop.
final class SelfTestRun {
    private static let patienceNanoseconds: UInt64 = 5_000_000_000
    /// So many records of others leave no room for those of the probes: see ``RefusalLimit``.
    private static let flood = 50

    private let loop: EventLoop
    private let probes: SelfTestProbes
    private var completion: ((SelfTestFailure?) -> Void)?
    /// What the kernel told of.
    private var told: Set<SelfTestProbes.Refusal> = []
    /// What it has to tell of; `nil` while the probes run.
    private var refused: Set<SelfTestProbes.Refusal>?
    /// How much else the kernel told of having refused. A program that floods takes all that may be recorded in a second;
    /// that records arrive is seen by its own.
    private var others = 0
    private var timer: TimerToken?

    init(loop: EventLoop, probes: SelfTestProbes, completion: @escaping (SelfTestFailure?) -> Void) {
        self.loop = loop
        self.probes = probes
        self.completion = completion
    }

    /// Begins; `tryAll` tries the probes in the sandbox's namespace and may block. The completion is called on the loop.
    func start(_ tryAll: @escaping SelfTestProbes.Attempt) {
        let run = LoopBound(self, to: loop)
        let probes = probes
        Keeper.start {
            let result: Result<Set<SelfTestProbes.Refusal>, SelfTestFailure>
            do {
                result = .success(try tryAll(probes))
            } catch let error as SelfTestFailure {
                result = .failure(error)
            } catch {
                result = .failure(.cannotProbe("\(error)"))
            }
            run.post { $0.probesEnded(result) }
        }
    }

    /// Looks at a record; says whether the probes caused it.
    func observe(_ event: AuditEvent) -> Bool {
        // Nobody else asks for class CHAOS; and who does loses a record of a malformed query at worst.
        if event.kind == .dnsDenied, event.host == nil, event.verdict?.reason == .malformedHello { return true }
        if event.kind == .dnsDenied, probes.deniesName, event.host == "\(SelfTestProbes.name)" { return true }
        guard event.kind == .connectionDenied, let address = event.address, let port = event.port,
            let transport = event.ipProtocol.flatMap(TransportProtocol.init(rawValue:))
        else { return false }
        let refusal = SelfTestProbes.Refusal(endpoint: Endpoint(address, port), transport: transport)
        guard probes.refusals.contains(refusal) else {
            if event.layer == .ip { others += 1 }
            finishIfComplete()
            return false
        }
        told.insert(refusal)
        finishIfComplete()
        return true
    }

    private func probesEnded(_ result: Result<Set<SelfTestProbes.Refusal>, SelfTestFailure>) {
        switch result {
        case .failure(let failure): return finish(failure)
        case .success(let refused): self.refused = refused
        }
        timer = loop.schedule(at: loop.now.advanced(byNanoseconds: Self.patienceNanoseconds)) { [weak self] in
            guard let self, let missing = refused?.subtracting(told).first else { return }
            timer = nil
            finish(others > 0 ? nil : .notRecorded(missing.endpoint, missing.transport))
        }
        finishIfComplete()
    }

    private func finishIfComplete() {
        guard let refused, refused.isSubset(of: told) || others > Self.flood else { return }
        finish(nil)
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
package enum DetachedThread {
    private final class Work {
        let body: @Sendable () -> Void
        init(_ body: @escaping @Sendable () -> Void) { self.body = body }
    }

    /// Runs `body` on a new thread. Aborts the process when the kernel has no thread left: nothing has been started.
    package static func start(_ body: @escaping @Sendable () -> Void) {
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
