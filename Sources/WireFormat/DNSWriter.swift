/// Writes a DNS message. Owner names that were written before are compressed (RFC 1035 4.1.4); names in data never are,
/// which RFC 3597 wants for all types but the oldest, but they may be what later owners point to.
struct DNSWriter {
    private(set) var bytes: [UInt8] = []
    /// Where a whole name, folded, stands in the message; the first ones of a message, which has few.
    private var names: [(name: DNSWireName, offset: UInt16)] = []
    private static let mostNames = 32

    init() {
        // Most answers over UDP are no longer.
        bytes.reserveCapacity(512)
    }

    mutating func append(byte: UInt8) { bytes.append(byte) }

    mutating func append(_ value: UInt16) {
        bytes.append(UInt8(truncatingIfNeeded: value >> 8))
        bytes.append(UInt8(truncatingIfNeeded: value))
    }

    mutating func append(_ more: [UInt8]) { bytes += more }

    mutating func appendQuestion(_ name: DNSWireName, _ type: DNSRecordType) {
        remember(name.folded)
        bytes += name.bytes
        append(type.rawValue)
        append(DNSRecordType.internetClass)
    }

    /// Appends a record, whose data is at most 65,535 bytes long since it was read from a message.
    mutating func append(_ record: DNSResourceRecord) {
        if let offset = offset(of: record.owner) {
            append(0xc000 | offset)
        } else {
            remember(record.owner)
            bytes += record.owner.bytes
        }
        append(record.type.rawValue)
        append(record.recordClass)
        append(UInt16(truncatingIfNeeded: record.ttl >> 16))
        append(UInt16(truncatingIfNeeded: record.ttl))
        append(UInt16(truncatingIfNeeded: record.data.count))
        if let target = record.canonicalName { remember(target) }
        bytes += record.data
    }

    /// The next thing written is `name`.
    private mutating func remember(_ name: DNSWireName) {
        // A pointer has 14 bits; the root is shorter than a pointer.
        guard bytes.count < 0x4000, names.count < Self.mostNames, !name.isRoot, offset(of: name) == nil else { return }
        names.append((name, UInt16(bytes.count)))
    }

    private func offset(of name: DNSWireName) -> UInt16? {
        names.first { $0.name == name }?.offset
    }
}
