/// A 48-bit Ethernet address (IEEE 802).
public struct HardwareAddress: Hashable, Sendable {
    /// The six bytes in the order of transmission.
    public let bytes: [UInt8]

    /// A locally administered unicast address (first byte 02) that ends in `tail`.
    public init(locallyAdministered tail: (UInt8, UInt8, UInt8, UInt8, UInt8)) {
        bytes = [0x02, tail.0, tail.1, tail.2, tail.3, tail.4]
    }
}

extension HardwareAddress: CustomStringConvertible {
    /// `02:53:47:00:00:01`.
    public var description: String {
        bytes.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined(separator: ":")
    }
}
