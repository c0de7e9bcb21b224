import Crypto

/// The SHA-256 that ties a record to what stands before it in the file.
public struct LineDigest: Hashable, Sendable {
    /// The 32 bytes.
    public let bytes: [UInt8]

    init(bytes: [UInt8]) {
        self.bytes = bytes
    }

    /// Parses 64 lower-case hexadecimal digits; `nil` for anything else.
    public init?(hexadecimal text: some Collection<UInt8>) {
        guard text.count == 64 else { return nil }
        var bytes: [UInt8] = []
        var high: UInt8?
        for digit in text {
            let value: UInt8
            switch digit {
            case UInt8(ascii: "0")...UInt8(ascii: "9"): value = digit - UInt8(ascii: "0")
            case UInt8(ascii: "a")...UInt8(ascii: "f"): value = digit - UInt8(ascii: "a") + 10
            default: return nil
            }
            if let first = high {
                bytes.append(first << 4 | value)
                high = nil
            } else {
                high = value
            }
        }
        self.bytes = bytes
    }

    /// The 64 lower-case hexadecimal digits.
    public var hexadecimal: [UInt8] {
        var digits: [UInt8] = []
        digits.reserveCapacity(64)
        for byte in bytes {
            digits.append(hexDigit(byte >> 4))
            digits.append(hexDigit(byte & 0xF))
        }
        return digits
    }
}

extension LineDigest: CustomStringConvertible {
    /// The hexadecimal digits.
    public var description: String { String(decoding: hexadecimal, as: UTF8.self) }
}

/// What the next record's `prev` must be. It covers the bytes of the last record's line, without the newline at its
/// end. Where a crash cut a line off, the torn line stands between two records; `prev` of the record behind it covers
/// the record before, the newline and the torn line together, so that no byte of the file goes unattested.
struct LineChain {
    private var hasher: SHA256?

    /// The `prev` of a record written now; `nil` at the start of a file.
    var digest: LineDigest? {
        hasher.map { LineDigest(bytes: Array($0.finalize())) }
    }

    /// A record's line, without its newline, follows.
    mutating func follow(record line: some Collection<UInt8>) {
        hasher = SHA256()
        update(line)
    }

    /// A line that is no record, without its newline, follows.
    mutating func follow(torn line: some Collection<UInt8>) {
        if hasher == nil { hasher = SHA256() } else { update(CollectionOfOne(UInt8(ascii: "\n"))) }
        update(line)
    }

    private mutating func update(_ bytes: some Collection<UInt8>) {
        if bytes.withContiguousStorageIfAvailable({ hasher?.update(bufferPointer: UnsafeRawBufferPointer($0)) }) == nil
        {
            hasher?.update(data: Array(bytes))
        }
    }
}
