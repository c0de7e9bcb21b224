public import Confinement
import Glibc
import Synchronization

/// Two threads of a process that gave its privileges up while it had one thread. The keeper still has what it takes to
/// enter and make namespaces, and starts a thread for each such piece of work; the porter has what all others have, and
/// wakes whoever waits. Nothing else of the process has a privilege: neither the API nor what parses.
///
///     keeper ──starts──▶ a thread that works ──▶ porter ──▶ whoever waits
///            ──starts──▶ a thread that carries traffic; it lets go of the rest by itself
///
/// Whoever wakes a task may by that start one of Swift's threads, which is given the waker's privileges. Hence the porter:
/// a thread that has others than most wakes nobody by itself.
///
/// All threads share their memory: this holds nobody who executes code of their own in here. It keeps what goes wrong in
/// one place from being carried out with the privileges of another.
public final class Keeper: Sendable {
    private static let current = Mutex<Keeper?>(nil)

    private let table: PrivilegeTable
    private let keeper: Worker?
    private let porter: Worker

    private init(table: PrivilegeTable, keeper: Worker?, porter: Worker) {
        self.table = table
        self.keeper = keeper
        self.porter = porter
    }

    /// Has this process keep what `mode` keeps, and of what threads may have that do everything else, `needed` alone.
    /// Throws with nothing begun when there is another thread already: it would keep all it has.
    public static func begin(_ mode: PrivilegeTable.Mode, needed: CapabilitySet = []) throws {
        guard try OwnPrivileges.threadCount == 1 else {
            throw NodeError.failed("privileges cannot be given up: there are other threads already")
        }
        let table = PrivilegeTable(mode)
        try OwnPrivileges.seal(makesNetworks: mode == .serve)
        let keeper = try Worker(name: OwnPrivileges.keeperName, keeping: table.most(.keeper))
        try OwnPrivileges.keep(table.most(.other).intersection(needed))
        let porter = try Worker(name: "sandgate-porter", keeping: nil)
        current.withLock { $0 = Keeper(table: table, keeper: keeper, porter: porter) }
    }

    /// The keeper has done its work: what is done from now on is done without privileges.
    public static func end() {
        current.withLock { current in
            guard let keeper = current else { return }
            keeper.keeper?.end()
            current = Keeper(table: keeper.table, keeper: nil, porter: keeper.porter)
        }
    }

    /// Starts a thread with the keeper's privileges, or the caller's where there is no keeper.
    package static func start(_ body: @escaping @Sendable () -> Void) {
        guard let keeper = current.withLock({ $0?.keeper }) else { return DetachedThread.start(body) }
        keeper.do { DetachedThread.start(body) }
    }

    /// Runs `body` on such a thread, where it may block, for callers that must not.
    package static func run<Output: Sendable>(_ body: @escaping @Sendable () throws -> Output) async throws -> Output {
        try await withCheckedThrowingContinuation { continuation in
            start {
                let result = Result { try body() }
                deliver { continuation.resume(with: result) }
            }
        }
    }

    /// Runs `body`, which takes no longer than a system call or two, with the keeper's privileges.
    package static func look<Output: Sendable>(_ body: @escaping @Sendable () -> Output) async -> Output {
        guard let keeper = current.withLock({ $0?.keeper }) else { return body() }
        return await withCheckedContinuation { continuation in
            keeper.do {
                let output = body()
                deliver { continuation.resume(returning: output) }
            }
        }
    }

    /// Runs `body`, which wakes somebody, on a thread like all others.
    package static func deliver(_ body: @escaping @Sendable () -> Void) {
        guard let porter = current.withLock({ $0?.porter }) else { return body() }
        porter.do(body)
    }

    /// To be called by a thread that carries traffic when it has opened what it needs: it lets go of the rest. Where
    /// nothing was given up, it stays as it is.
    package static func beginCarrying() throws {
        OwnPrivileges.name(OwnPrivileges.loopName)
        guard let table = current.withLock({ $0?.table }) else { return }
        try OwnPrivileges.keep(table.most(.loop))
    }
}

/// A thread that does what it is given, one thing after the other.
///
/// `@unchecked Sendable` holds because the semaphore is the kernel's to share, and the rest is locked.
private final class Worker: @unchecked Sendable {
    private let work = Mutex<[@Sendable () -> Void]>([])
    private let arrivals = UnsafeMutablePointer<sem_t>.allocate(capacity: 1)

    /// Starts the thread, which keeps `kept` of the caller's capabilities, or all of them. Returns when it has let go of
    /// the others.
    init(name: String, keeping kept: CapabilitySet?) throws {
        sem_init(arrivals, 0, 0)
        let started = Handover<Result<Void, any Error>>()
        DetachedThread.start { [self] in
            OwnPrivileges.name(name)
            started.give(Result { if let kept { try OwnPrivileges.keep(kept) } })
            while let next { next() }
        }
        try started.take().get()
    }

    deinit {
        sem_destroy(arrivals)
        arrivals.deallocate()
    }

    /// Has something done.
    func `do`(_ body: @escaping @Sendable () -> Void) {
        work.withLock { $0.append(body) }
        sem_post(arrivals)
    }

    /// Lets the thread end when it has done what it was given.
    func end() {
        sem_post(arrivals)
    }

    /// Waits for something to do; `nil` at the end.
    private var next: (@Sendable () -> Void)? {
        while sem_wait(arrivals) != 0 {}
        return work.withLock { $0.isEmpty ? nil : $0.removeFirst() }
    }
}
