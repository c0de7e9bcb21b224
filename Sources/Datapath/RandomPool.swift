import Glibc

/// The kernel's random numbers, fetched 32 at a time: a system call for each would be a tenth of those that a query takes.
struct RandomPool: RandomNumberGenerator {
    /// At most 256 bytes, of which getentropy(3) gives all or none.
    private static let size = 32
    private var numbers: [UInt64] = []

    mutating func next() -> UInt64 {
        if numbers.isEmpty { refill() }
        return numbers.removeLast()
    }

    private mutating func refill() {
        numbers = [UInt64](unsafeUninitializedCapacity: Self.size) { buffer, count in
            let status = getentropy(buffer.baseAddress, Self.size * MemoryLayout<UInt64>.stride)
            // Identifiers that can be foretold are worse than no resolver.
            precondition(status == 0, "the kernel gives no random numbers")
            count = Self.size
        }
    }
}
