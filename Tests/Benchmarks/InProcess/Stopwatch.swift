/// Seconds that `body` takes, and what it returns.
func timed<Result>(_ body: () throws -> Result) rethrows -> (seconds: Double, result: Result) {
    let start = ContinuousClock.now
    let result = try body()
    let (seconds, attoseconds) = start.duration(to: .now).components
    return (Double(seconds) + Double(attoseconds) * 1e-18, result)
}

/// The middle one of `values`.
func median(_ values: [Double]) -> Double {
    values.sorted()[values.count / 2]
}

/// Makes the compiler believe that `value` is needed.
@inline(never) func use<Value>(_ value: Value) {
    withExtendedLifetime(value) {}
}
