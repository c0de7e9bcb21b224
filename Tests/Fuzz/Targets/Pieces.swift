/// Divides an input in a way that depends on its bytes alone, so that a kept input fails again.
enum Pieces {
    /// Ever longer prefixes of `bytes`, the last of them all of it; every prefix of a short input.
    static func prefixes(of bytes: [UInt8]) -> [[UInt8]] {
        ends(in: bytes).map { Array(bytes.prefix($0)) }
    }

    /// `bytes` cut into parts.
    static func parts(of bytes: [UInt8]) -> [[UInt8]] {
        let ends = ends(in: bytes)
        return zip([0] + ends, ends).map { Array(bytes[$0..<$1]) }
    }

    private static func ends(in bytes: [UInt8]) -> [Int] {
        guard bytes.count > 64 else { return Array(0...bytes.count) }
        // FNV-1a, then a linear congruence: no more than a spread is needed.
        var state = bytes.reduce(0xcbf2_9ce4_8422_2325 as UInt64) { ($0 ^ UInt64($1)) &* 0x100_0000_01b3 }
        var ends: Set<Int> = [bytes.count]
        for _ in 0..<8 {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            ends.insert(Int(state >> 33) % (bytes.count + 1))
        }
        return ends.sorted()
    }
}
