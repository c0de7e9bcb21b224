import CLinux
import Glibc

/// A thread's signal mask, to be restored. SIGPIPE is blocked in one thread rather than ignored in the process, because
/// an ignored signal stays ignored in the programs that the process starts.
struct SignalMask {
    private var previous = sigset_t()

    /// Blocks SIGPIPE in this thread.
    static func blockPipe() -> SignalMask {
        var mask = SignalMask()
        var pipe = only(SIGPIPE)
        pthread_sigmask(SIG_BLOCK, &pipe, &mask.previous)
        return mask
    }

    /// Puts the mask back, and takes a SIGPIPE that came meanwhile so that it is not delivered now.
    func restore() {
        var previous = previous
        if sigismember(&previous, SIGPIPE) == 0 {
            var pipe = Self.only(SIGPIPE)
            var zero = timespec()
            while sigtimedwait(&pipe, nil, &zero) == SIGPIPE {}
        }
        pthread_sigmask(SIG_SETMASK, &previous, nil)
    }

    private static func only(_ signal: CInt) -> sigset_t {
        var set = sigset_t()
        sigemptyset(&set)
        sigaddset(&set, signal)
        return set
    }
}
