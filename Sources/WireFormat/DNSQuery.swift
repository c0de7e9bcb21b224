public import NetPrimitives

/// A query from a client: one question in class IN and nothing that could carry anything else. EDNS options are
/// checked for their form and forgotten.
public struct DNSQuery: Hashable, Sendable {
    /// What the client says of itself in the OPT record (RFC 6891).
    public struct EDNS: Hashable, Sendable {
        /// The largest UDP message the client takes, as it says.
        public let udpSize: UInt16
        /// The EDNS version; only 0 exists.
        public let version: UInt8
        /// Whether the client understands DNSSEC (RFC 3225).
        public let isDNSSECOK: Bool
    }

    /// The client's identifier, to be echoed.
    public let id: UInt16
    /// The RD bit, to be echoed.
    public let recursionDesired: Bool
    /// The CD bit, to be echoed (RFC 4035 3.2.2).
    public let checkingDisabled: Bool
    /// The AD bit: the client understands an AD bit in the answer (RFC 6840 5.7).
    public let wantsAuthenticData: Bool
    /// The name asked for, in the client's case.
    public let wireName: DNSWireName
    /// The canonical host name, or why what was asked for is none.
    public let name: Result<DomainName, DomainName.ParseError>
    /// The type asked for.
    public let type: DNSRecordType
    /// The client's OPT record, if it sent one.
    public let edns: EDNS?
}

/// A message that is not a query which can be judged.
public struct DNSQueryError: Error, Hashable, Sendable {
    /// What is wrong with it.
    public let error: WireError
    /// The answer it must get: a bare header. `nil` for what must not be answered at all: a response, or less than a
    /// header.
    public let reply: [UInt8]?
}

extension DNSQuery {
    /// The length of a DNS message's header (RFC 1035 4.1.1).
    public static let headerLength = 12

    /// Parses a client's message, which must be a query in whole: see `policy-semantics`, "What a query must look like".
    public init(parsing bytes: [UInt8]) throws(DNSQueryError) {
        guard bytes.count >= Self.headerLength, bytes[2] & 0x80 == 0 else {
            let error = WireError(
                offset: 0,
                problem: bytes.count < 12 ? "header is not complete" : "message is a response"
            )
            throw DNSQueryError(error: error, reply: nil)
        }
        guard bytes[2] & 0x78 == 0 else {
            let error = WireError(offset: 2, problem: "opcode is not QUERY")
            throw DNSQueryError(error: error, reply: Self.bareReply(to: bytes, .notImplemented))
        }
        let body: Body
        do {
            body = try Body(parsing: bytes)
        } catch {
            throw DNSQueryError(error: error, reply: Self.bareReply(to: bytes, .formatError))
        }
        guard body.recordClass == DNSRecordType.internetClass else {
            let error = WireError(offset: body.end - 2, problem: "class is not IN")
            throw DNSQueryError(error: error, reply: Self.bareReply(to: bytes, .refused))
        }
        self.id = UInt16(bytes[0]) << 8 | UInt16(bytes[1])
        self.recursionDesired = bytes[2] & 0x01 != 0
        self.wantsAuthenticData = bytes[3] & 0x20 != 0
        self.checkingDisabled = bytes[3] & 0x10 != 0
        self.wireName = body.name
        self.name = Result { () throws(DomainName.ParseError) in try body.name.domainName() }
        self.type = body.type
        self.edns = body.edns
    }

    /// A query that nobody sent: what the process itself asks for on behalf of the sandbox.
    public init(_ name: DomainName, _ type: DNSRecordType) {
        self.id = 0
        self.recursionDesired = true
        self.checkingDisabled = false
        self.wantsAuthenticData = false
        self.wireName = DNSWireName(name)
        self.name = .success(name)
        self.type = type
        self.edns = nil
    }

    private static func bareReply(to query: [UInt8], _ code: DNSResponseCode) -> [UInt8] {
        [query[0], query[1], query[2] & 0x79 | 0x80, 0x80 | UInt8(code.rawValue & 0xf), 0, 0, 0, 0, 0, 0, 0, 0]
    }

    /// What follows the flags.
    private struct Body {
        var name: DNSWireName
        var type: DNSRecordType
        var recordClass: UInt16
        /// One past the question.
        var end: Int
        var edns: EDNS?

        init(parsing bytes: [UInt8]) throws(WireError) {
            var reader = DNSReader(bytes, offset: 4)
            guard try reader.readUInt16() == 1 else { throw reader.error("message has not exactly one question") }
            guard try reader.readUInt16() == 0 else { throw reader.error("query has answer records") }
            guard try reader.readUInt16() == 0 else { throw reader.error("query has authority records") }
            let additionalCount = try reader.readUInt16()
            guard additionalCount <= 1 else { throw reader.error("query has several additional records") }
            name = try reader.readUncompressedName()
            type = DNSRecordType(rawValue: try reader.readUInt16())
            recordClass = try reader.readUInt16()
            end = reader.offset
            if additionalCount == 1 { edns = try EDNS(reading: &reader) }
            guard reader.isAtEnd else { throw reader.error("query has trailing bytes") }
        }
    }
}

extension DNSQuery.EDNS {
    /// Reads the OPT record of a query; any other record is an error.
    init(reading reader: inout DNSReader) throws(WireError) {
        guard try reader.readByte() == 0 else { throw reader.error("additional record is not OPT") }
        guard try reader.readUInt16() == DNSRecordType.opt.rawValue else {
            throw reader.error("additional record is not OPT")
        }
        udpSize = try reader.readUInt16()
        _ = try reader.readByte()  // the upper bits of a response code mean nothing in a query
        version = try reader.readByte()
        isDNSSECOK = try reader.readUInt16() & 0x8000 != 0
        let length = Int(try reader.readUInt16())
        try reader.readExactly(length) { (options) throws(WireError) in
            while !options.isAtEnd {
                _ = try options.readUInt16()
                let optionLength = Int(try options.readUInt16())
                _ = try options.readBytes(optionLength)
            }
        }
    }
}
