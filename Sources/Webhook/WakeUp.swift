import Synchronization

/// Where one task waits until somebody has something for it. A signal that comes while nobody waits is kept; it may end a
/// wait that came for something else, so who waits looks again.
final class WakeUp: Sendable {
    private struct State {
        var isSignalled = false
        var waiter: CheckedContinuation<Void, Never>?
    }

    private let state = Mutex(State())

    /// Ends the wait, or the next one.
    func signal() {
        let waiter = state.withLock { state in
            let waiter = state.waiter
            state.waiter = nil
            if waiter == nil { state.isSignalled = true }
            return waiter
        }
        waiter?.resume()
    }

    /// Waits until `deadline`, but no longer than the task lives and than `isNeeded` says, which is asked again at each signal.
    func wait(until deadline: ContinuousClock.Instant, while isNeeded: () -> Bool) async {
        while !Task.isCancelled, ContinuousClock.now < deadline, isNeeded() { await wait(until: deadline) }
    }

    /// Waits for a signal, until `deadline` if there is one, and no longer than the task lives.
    func wait(until deadline: ContinuousClock.Instant? = nil) async {
        let clock = deadline.map { deadline in
            Task {
                try await Task.sleep(until: deadline, clock: .continuous)
                signal()
            }
        }
        defer { clock?.cancel() }
        await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                let isSignalled = state.withLock { state in
                    guard !state.isSignalled else {
                        state.isSignalled = false
                        return true
                    }
                    state.waiter = continuation
                    return false
                }
                if isSignalled { continuation.resume() }
            }
        } onCancel: {
            signal()
        }
    }
}
