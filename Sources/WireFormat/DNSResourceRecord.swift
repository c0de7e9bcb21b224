public import NetPrimitives

/// A resource record (RFC 1035 4.1.3) whose data holds no compressed names.
public struct DNSResourceRecord: Hashable, Sendable {
    /// The name it belongs to, folded to lower case.
    public let owner: DNSWireName
    /// The type.
    public let type: DNSRecordType
    /// The class; 1 is IN. Of an OPT record it is the server's UDP size.
    public let recordClass: UInt16
    /// How many seconds it may be kept. Of an OPT record it is more flags.
    public var ttl: UInt32
    /// The data.
    public let data: [UInt8]

    /// A record of class IN.
    public init(_ owner: DNSWireName, _ type: DNSRecordType, ttl: UInt32, data: [UInt8]) {
        self.init(owner: owner, type: type, recordClass: DNSRecordType.internetClass, ttl: ttl, data: data)
    }

    /// A PTR record that leads from `owner` to `target`.
    public init(pointer owner: DNSWireName, to target: DomainName, ttl: UInt32) {
        self.init(owner, .ptr, ttl: ttl, data: DNSWireName(target).bytes)
    }

    init(owner: DNSWireName, type: DNSRecordType, recordClass: UInt16, ttl: UInt32, data: [UInt8]) {
        self.owner = owner
        self.type = type
        self.recordClass = recordClass
        self.ttl = ttl
        self.data = data
    }

    /// Roughly how many bytes the record takes in memory.
    public var cost: Int { owner.bytes.count + data.count + 96 }
}

// MARK: - What the data says

extension DNSResourceRecord {
    /// The address of an A or AAAA record; `nil` for any other type.
    public var address: IPAddress? {
        switch type {
        case .a: data.count == 4 ? IPAddress(networkBytes: data) : nil
        case .aaaa: data.count == 16 ? IPAddress(networkBytes: data) : nil
        default: nil
        }
    }

    /// The target of a CNAME record; `nil` for any other type.
    public var canonicalName: DNSWireName? {
        type == .cname ? DNSWireName(wire: data) : nil
    }

    /// The type that an RRSIG record signs (RFC 4034 3.1.1); `nil` for any other type.
    public var coveredType: DNSRecordType? {
        guard type == .rrsig, data.count >= 18 else { return nil }
        return DNSRecordType(rawValue: UInt16(data[0]) << 8 | UInt16(data[1]))
    }

    /// For how many seconds an SOA record lets a negative answer be kept (RFC 2308 5): the lower of its MINIMUM field
    /// and its own TTL; `nil` for any other type.
    public var negativeTTL: UInt32? {
        guard type == .soa, data.count >= 22 else { return nil }
        return min(ttl, data.suffix(4).reduce(0) { $0 << 8 | UInt32($1) })
    }
}

// MARK: - Decoding

extension DNSResourceRecord {
    init(reading reader: inout DNSReader) throws(WireError) {
        let owner = try reader.readFoldedName()
        let type = DNSRecordType(rawValue: try reader.readUInt16())
        let recordClass = try reader.readUInt16()
        let ttl = try reader.readUInt32()
        let length = Int(try reader.readUInt16())
        let data = try reader.readExactly(length) { (inner) throws(WireError) in
            try Self.readData(of: type, &inner)
        }
        // RFC 2181 8: a TTL with the top bit set counts as 0. In an OPT record the field is no TTL.
        let lifetime = type != .opt && ttl > 0x7fff_ffff ? 0 : ttl
        self.init(owner: owner, type: type, recordClass: recordClass, ttl: lifetime, data: data)
    }

    /// Reads to the end of `reader`, writing names out in full. Only the types of RFC 1035 may hold compressed names
    /// (RFC 3597 4); SRV and NAPTR must not, but some servers compress theirs.
    private static func readData(of type: DNSRecordType, _ reader: inout DNSReader) throws(WireError) -> [UInt8] {
        switch type {
        case .a:
            guard reader.remaining == 4 else { throw reader.error("address is not of 4 bytes") }
            return Array(try reader.readBytes(4))
        case .aaaa:
            guard reader.remaining == 16 else { throw reader.error("address is not of 16 bytes") }
            return Array(try reader.readBytes(16))
        case .cname, .ns, .ptr, .dname:
            return try reader.readFoldedName().bytes
        case .mx:
            return Array(try reader.readBytes(2)) + (try reader.readFoldedName().bytes)
        case .srv:
            return Array(try reader.readBytes(6)) + (try reader.readFoldedName().bytes)
        case .soa:
            let names = try reader.readFoldedName().bytes + (try reader.readFoldedName().bytes)
            return names + (try reader.readBytes(20))
        case .naptr:
            var data = Array(try reader.readBytes(4))
            for _ in 0..<3 {
                let length = try reader.readByte()
                data.append(length)
                data += try reader.readBytes(Int(length))
            }
            return data + (try reader.readFoldedName().bytes)
        default:
            return Array(try reader.readBytes(reader.remaining))
        }
    }
}
