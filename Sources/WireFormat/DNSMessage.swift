/// A question (RFC 1035 4.1.2).
public struct DNSQuestion: Hashable, Sendable {
    /// The name, in the case it has on the wire.
    public let name: DNSWireName
    /// The type.
    public let type: DNSRecordType
    /// The class; 1 is IN.
    public let recordClass: UInt16

    /// A question in class IN.
    public init(_ name: DNSWireName, _ type: DNSRecordType) {
        self.name = name
        self.type = type
        self.recordClass = DNSRecordType.internetClass
    }

    init(name: DNSWireName, type: DNSRecordType, recordClass: UInt16) {
        self.name = name
        self.type = type
        self.recordClass = recordClass
    }
}

/// A message from an upstream server, decoded. Owner names are folded to lower case, and so are the names inside the
/// data of types that may hold compressed ones (RFC 4034 6.2): the random case of our question must not come back in
/// other records.
public struct DNSMessage: Hashable, Sendable {
    /// The most records of all sections together; a message of 64 KiB can hold 5,957 empty ones.
    public static let maximumRecords = 4_096

    /// The identifier.
    public let id: UInt16
    /// The QR bit: whether this is a response.
    public let isResponse: Bool
    /// The opcode, 0...15; 0 is QUERY.
    public let opcode: UInt8
    /// The TC bit: whether records were left out.
    public let isTruncated: Bool
    /// The AD bit: whether the server vouches for the answer's signatures.
    public let isAuthenticData: Bool
    /// How the query ended, with the upper bits of the OPT record.
    public let code: DNSResponseCode
    /// The question section.
    public let questions: [DNSQuestion]
    /// The answer section.
    public let answers: [DNSResourceRecord]
    /// The authority section.
    public let authorities: [DNSResourceRecord]
}

extension DNSMessage {
    /// Decodes a message that must fill `bytes` exactly.
    public init(decoding bytes: [UInt8]) throws(WireError) {
        var reader = DNSReader(bytes)
        id = try reader.readUInt16()
        let flags = try reader.readUInt16()
        isResponse = flags & 0x8000 != 0
        opcode = UInt8(flags >> 11 & 0xf)
        isTruncated = flags & 0x0200 != 0
        isAuthenticData = flags & 0x0020 != 0
        let questionCount = Int(try reader.readUInt16())
        let answerCount = Int(try reader.readUInt16())
        let authorityCount = Int(try reader.readUInt16())
        let additionalCount = Int(try reader.readUInt16())
        guard questionCount <= 1 else { throw reader.error("message has several questions") }
        guard answerCount + authorityCount + additionalCount <= Self.maximumRecords else {
            throw reader.error("message has too many records")
        }
        var questions: [DNSQuestion] = []
        if questionCount == 1 { questions.append(try DNSQuestion(reading: &reader)) }
        self.questions = questions
        answers = try Self.readRecords(answerCount, &reader)
        authorities = try Self.readRecords(authorityCount, &reader)
        let additionals = try Self.readRecords(additionalCount, &reader)
        guard reader.isAtEnd else { throw reader.error("message has trailing bytes") }

        let options = additionals.lazy.filter { $0.type == .opt }
        guard options.count <= 1, options.allSatisfy({ $0.owner.isRoot }) else {
            throw reader.error("message has a malformed OPT record")
        }
        let upper = UInt16(truncatingIfNeeded: (options.first?.ttl ?? 0) >> 24)
        code = DNSResponseCode(rawValue: upper << 4 | flags & 0xf)
    }

    private static func readRecords(
        _ count: Int,
        _ reader: inout DNSReader
    ) throws(WireError) -> [DNSResourceRecord] {
        var records: [DNSResourceRecord] = []
        records.reserveCapacity(min(count, reader.remaining / 11))
        for _ in 0..<count { records.append(try DNSResourceRecord(reading: &reader)) }
        return records
    }
}

extension DNSQuestion {
    init(reading reader: inout DNSReader) throws(WireError) {
        let name = try reader.readUncompressedName()
        let type = DNSRecordType(rawValue: try reader.readUInt16())
        self.init(name: name, type: type, recordClass: try reader.readUInt16())
    }
}
