internal import Glibc

/// Runs `body` on a thread made for it and waits for the thread's end.
///
/// A thread that changed its namespaces is never used again: nothing has to be changed back, so nothing can be left
/// in the wrong place when changing back fails.
/// - Throws: what `body` throws, or a `NamespaceError` when no thread can be started.
func onDedicatedThread<Result>(_ body: () throws -> Result) throws -> Result {
    try withoutActuallyEscaping(body) { body in
        let work = ThreadWork(body)
        var thread = pthread_t()
        let started = pthread_create(
            &thread,
            nil,
            { argument in
                Unmanaged<AnyThreadWork>.fromOpaque(argument!).takeUnretainedValue().run()
                return nil
            },
            Unmanaged<AnyThreadWork>.passUnretained(work).toOpaque()
        )
        guard started == 0 else { throw NamespaceError("cannot start a thread", errno: started) }
        pthread_join(thread, nil)
        return try work.takeResult()
    }
}

/// The type-erased half of ``ThreadWork``, for the trip through a C pointer.
private class AnyThreadWork {
    func run() {}
}

/// A closure and the place for its result. Two threads touch it, never at the same time: the starter waits in
/// `pthread_join`.
private final class ThreadWork<Output>: AnyThreadWork {
    private var body: (() throws -> Output)?
    private var result: Result<Output, any Error>?

    init(_ body: @escaping () throws -> Output) {
        self.body = body
    }

    override func run() {
        guard let body else { return }
        result = Result { try body() }
    }

    /// The result; lets go of the closure, which must not outlive the call it was passed to.
    func takeResult() throws -> Output {
        body = nil
        guard let result else { preconditionFailure("the thread ended without a result") }
        return try result.get()
    }
}
