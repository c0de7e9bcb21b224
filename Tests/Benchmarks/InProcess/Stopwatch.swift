import Glibc

/// Seconds that `body` takes, and what it returns.
func timed<Result>(_ body: () throws -> Result) rethrows -> (seconds: Double, result: Result) {
    let start = ContinuousClock.now
    let result = try body()
    let (seconds, attoseconds) = start.duration(to: .now).components
    return (Double(seconds) + Double(attoseconds) * 1e-18, result)
}

/// Seconds of this thread's CPU time that `body` takes, and what it returns: for what waits for nobody. What else the
/// machine does is then not in it.
func timedOnCPU<Result>(_ body: () throws -> Result) rethrows -> (seconds: Double, result: Result) {
    let start = cpuSeconds()
    let result = try body()
    return (cpuSeconds() - start, result)
}

private func cpuSeconds() -> Double {
    var time = timespec()
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time)
    return Double(time.tv_sec) + Double(time.tv_nsec) * 1e-9
}

/// The middle one of `values`.
func median(_ values: [Double]) -> Double {
    values.sorted()[values.count / 2]
}

/// Makes the compiler believe that `value` is needed.
@inline(never) func use<Value>(_ value: Value) {
    withExtendedLifetime(value) {}
}
