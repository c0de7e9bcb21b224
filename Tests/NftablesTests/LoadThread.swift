import Glibc
import Namespaces
import NetPrimitives
import Reactor
import Synchronization

/// A program in the sandbox that connects where it may and sends where it may not, as fast as it can.
final class LoadThread: Sendable {
    struct Counts {
        var connected = 0
        var refused = 0
        var deniedSent = 0
    }

    private let pinned: Endpoint
    private let possible: Endpoint
    private let denied: Endpoint
    private let proxy: CInt
    private let isStopping = Atomic(false)
    private let counts = Mutex(Counts())
    private let thread = Mutex<pthread_t?>(nil)

    init(pinned: Endpoint, possible: Endpoint, denied: Endpoint, proxy: CInt) {
        self.pinned = pinned
        self.possible = possible
        self.denied = denied
        self.proxy = proxy
    }

    /// Begins; the sockets are made in `namespace`.
    func start(in namespace: NetworkNamespace) throws {
        let started = try namespace.enter {
            var thread = pthread_t()
            // A thread starts in the namespace of the one that makes it.
            let status = pthread_create(
                &thread,
                nil,
                {
                    Unmanaged<LoadThread>.fromOpaque($0!).takeUnretainedValue().run()
                    return nil
                },
                Unmanaged.passUnretained(self).toOpaque()
            )
            precondition(status == 0, "cannot start a thread")
            return thread
        }
        thread.withLock { $0 = started }
    }

    /// Ends and tells what happened.
    func stop() -> Counts {
        isStopping.store(true, ordering: .relaxed)
        if let thread = thread.withLock({ $0 }) { pthread_join(thread, nil) }
        return counts.withLock { $0 }
    }

    private func run() {
        var counts = Counts()
        while !isStopping.load(ordering: .relaxed) {
            for destination in [pinned, possible] {
                switch Probe.connect(destination) {
                case .success(let client):
                    counts.connected += 1
                    Sockets.reset(client)
                case .failure: counts.refused += 1
                }
                while case .accepted(let descriptor, _) = Sockets.accept(proxy) { Sockets.reset(descriptor) }
            }
            if Probe.send(denied) == 0 { counts.deniedSent += 1 }
        }
        self.counts.withLock { $0 = counts }
    }
}
