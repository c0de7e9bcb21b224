/// SplitMix64: the same seed gives the same inputs on every run, so that a failure can be repeated.
struct SeededGenerator: RandomNumberGenerator {
    private var state: UInt64

    init(seed: UInt64) { state = seed }

    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var mixed = state
        mixed = (mixed ^ mixed >> 30) &* 0xbf58_476d_1ce4_e5b9
        mixed = (mixed ^ mixed >> 27) &* 0x94d0_49bb_1331_11eb
        return mixed ^ mixed >> 31
    }
}

extension SeededGenerator {
    /// `bytes` after a few small accidents: bytes changed, cut out, doubled or put in, or the end cut off.
    mutating func mutate(_ bytes: [UInt8], spice: [[UInt8]] = []) -> [UInt8] {
        var bytes = bytes
        for _ in 0..<Int.random(in: 1...4, using: &self) {
            let place = bytes.isEmpty ? 0 : Int.random(in: 0...bytes.count, using: &self)
            let end = min(bytes.count, place + Int.random(in: 1...8, using: &self))
            switch Int.random(in: 0...6, using: &self) {
            case 0 where place < bytes.count: bytes[place] = UInt8.random(in: 0...255, using: &self)
            case 1 where place < bytes.count: bytes[place] ^= 1 << UInt8.random(in: 0...7, using: &self)
            case 2 where place < bytes.count: bytes[place] = [0, 1, 0x7f, 0x80, 0xff].randomElement(using: &self)!
            case 3: bytes.removeSubrange(place..<end)
            case 4: bytes.insert(contentsOf: bytes[place..<end], at: place)
            case 5: bytes.insert(contentsOf: spice.randomElement(using: &self) ?? [0], at: place)
            default: bytes.removeSubrange(place...)
            }
        }
        return bytes
    }

    /// Ever longer prefixes of `bytes`, the last of them all of it.
    mutating func prefixes(of bytes: [UInt8]) -> [[UInt8]] {
        var ends = (0..<Int.random(in: 0...5, using: &self)).map { _ in Int.random(in: 0...bytes.count, using: &self) }
        ends.sort()
        return (ends + [bytes.count]).map { Array(bytes.prefix($0)) }
    }
}

extension [UInt8] {
    /// Bytes from hexadecimal digits; white space is skipped.
    init(hexadecimal text: String) {
        let digits = text.compactMap { $0.hexDigitValue.map(UInt8.init) }
        self = stride(from: 0, to: digits.count - 1, by: 2).map { digits[$0] << 4 | digits[$0 + 1] }
    }
}
