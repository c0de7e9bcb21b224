internal import CLinux
import Glibc
internal import Synchronization

/// How other threads reach an event loop: what is posted runs in the loop's thread. The only part of a loop that may be
/// shared.
public final class Mailbox: Sendable {
    /// Work for the loop's thread.
    public typealias Message = @Sendable () -> Void

    private struct State {
        var messages: [Message] = []
        var isClosed = false
    }

    /// An eventfd; readable while messages wait.
    let descriptor: CInt
    private let state = Mutex(State())

    init() throws(SystemError) {
        descriptor = eventfd(0, CInt(EFD_NONBLOCK | EFD_CLOEXEC))
        if descriptor < 0 { throw .current("create", "an eventfd") }
    }

    deinit {
        _ = Glibc.close(descriptor)
    }

    /// Has `message` run in the loop's thread, after those posted before. From any thread. Returns whether the loop
    /// still exists; when it has gone, `message` is dropped. A loop that is not running keeps messages until it runs.
    @discardableResult
    public func post(_ message: @escaping Message) -> Bool {
        let (accepted, isFirst) = state.withLock { state in
            guard !state.isClosed else { return (false, false) }
            state.messages.append(message)
            return (true, state.messages.count == 1)
        }
        // One wake-up for all that is posted until the loop looks.
        if isFirst { wake() }
        return accepted
    }

    private func wake() {
        // The counter cannot overflow: it is reset whenever the loop looks. So the only error is a signal's.
        while eventfd_write(descriptor, 1) < 0, errno == EINTR {}
    }

    /// Takes everything that waits.
    func take() -> [Message] {
        var count: eventfd_t = 0
        // Before the messages are taken: one posted in between wakes the loop for nothing, never the other way round.
        _ = eventfd_read(descriptor, &count)
        return state.withLock { state in
            defer { state.messages = [] }
            return state.messages
        }
    }

    /// The loop is gone: drops what waits and what will be posted.
    func close() {
        let dropped = state.withLock { state in
            defer { state.messages = [] }
            state.isClosed = true
            return state.messages
        }
        _ = dropped  // released outside the lock: a message's captures may post when they end
    }
}
