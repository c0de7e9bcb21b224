/// A closed range of TCP or UDP ports, 1...65535.
public struct PortRange: Hashable, Sendable {
    /// The lowest port.
    public let lower: UInt16
    /// The highest port, at least ``lower``.
    public let upper: UInt16

    /// The ports `lower...upper`; `nil` when empty or when it holds port 0.
    public init?(_ lower: UInt16, _ upper: UInt16) {
        guard lower > 0, lower <= upper else { return nil }
        self.lower = lower
        self.upper = upper
    }

    /// One port; `nil` for port 0.
    public init?(_ port: UInt16) {
        self.init(port, port)
    }

    /// Whether `port` lies in the range.
    public func contains(_ port: UInt16) -> Bool { lower <= port && port <= upper }

    /// The union of `ranges`: sorted, neither overlapping nor touching.
    public static func merged(_ ranges: [PortRange]) -> [PortRange] {
        var merged: [PortRange] = []
        for range in ranges.sorted(by: { ($0.lower, $0.upper) < ($1.lower, $1.upper) }) {
            if let last = merged.last, Int(range.lower) <= Int(last.upper) + 1 {
                merged[merged.count - 1] = PortRange(last.lower, max(last.upper, range.upper))!
            } else {
                merged.append(range)
            }
        }
        return merged
    }

    /// Every port.
    public static let all = PortRange(1, 65535)!
}

extension PortRange: CustomStringConvertible {
    /// `443` or `8000-8100`.
    public var description: String { lower == upper ? "\(lower)" : "\(lower)-\(upper)" }

    /// Parses `443` or `8000-8100`; decimal, no white space, no leading zeros.
    public init?(parsing text: String) {
        let parts = text.utf8.split(separator: UInt8(ascii: "-"), omittingEmptySubsequences: false)
        let numbers = parts.compactMap { decimal($0, maximum: 65535) }
        guard numbers.count == parts.count, (1...2).contains(numbers.count) else { return nil }
        self.init(UInt16(numbers[0]), UInt16(numbers[numbers.count - 1]))
    }
}
