internal import CLinux
import Glibc

/// Signals as events of a loop, through signalfd(2). The signals are blocked in the calling thread and every thread it
/// starts later; so make it before any other thread exists.
public final class SignalSource: EventSource {
    private let loop: EventLoop
    private let descriptor: CInt
    private let onArrival: (CInt) -> Void

    /// Begins to deliver `signals`, by their numbers, to `onArrival`, on the loop.
    public init(loop: EventLoop, signals: [CInt], onArrival: @escaping (CInt) -> Void) throws(SystemError) {
        var set = sigset_t()
        sigemptyset(&set)
        for number in signals { sigaddset(&set, number) }
        pthread_sigmask(SIG_BLOCK, &set, nil)
        self.loop = loop
        self.descriptor = signalfd(-1, &set, CInt(SFD_NONBLOCK | SFD_CLOEXEC))
        self.onArrival = onArrival
        super.init()
        guard descriptor >= 0 else {
            throw SystemError(operation: "open", errno: errno, context: "a signal descriptor")
        }
        try loop.register(self, descriptor: descriptor, interest: .readable)
    }

    /// Stops delivering; the signals stay blocked.
    public func stop() {
        loop.deregister(self)
        close(descriptor)
    }

    override public func handle(_ readiness: Readiness) {
        var info = signalfd_siginfo()
        while read(descriptor, &info, MemoryLayout<signalfd_siginfo>.size) == MemoryLayout<signalfd_siginfo>.size {
            onArrival(CInt(info.ssi_signo))
        }
    }
}
