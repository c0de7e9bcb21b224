public import NetPrimitives

/// What a TLS client says before anything is encrypted (RFC 8446 4.1.2), as far as a judgement needs it. There is one
/// only of a message that is well-formed as a whole.
public struct ClientHello: Hashable, Sendable {
    /// The name in the server_name extension (RFC 6066 3).
    public enum ServerName: Hashable, Sendable {
        /// No such extension.
        case absent
        /// Exactly one host name.
        case name(DomainName)
        /// Anything else: no entry, several, another type, an address, a trailing dot, bytes that no host name has.
        case malformed
    }

    /// The server's name.
    public let serverName: ServerName
    /// Whether an encrypted_client_hello extension is present. Browsers always send one, most often a meaningless
    /// (GREASE) one, which cannot be told from a real one.
    public let hasEncryptedClientHello: Bool
    /// The protocols offered (RFC 7301), in order; empty without the extension.
    public let alpn: [[UInt8]]
    /// How many bytes of the stream the message took, record headers included.
    public let length: Int
}

extension ClientHello {
    /// Parses a complete handshake message, its four-byte header included.
    /// - Parameter length: the bytes of the stream that carried it.
    init(handshake message: [UInt8], length: Int) throws(WireError) {
        var reader = ByteReader(message)
        guard try reader.readUInt8() == 1 else { throw WireError(offset: 0, problem: "not a ClientHello") }
        var body = try reader.readPart(Int(try reader.readUInt24()))
        try reader.finish("bytes follow the ClientHello")

        let versionOffset = body.offset
        guard try body.readUInt16() >> 8 == 3 else {
            throw WireError(offset: versionOffset, problem: "legacy_version is not 3.x")
        }
        _ = try body.readPart(32)  // random
        try Self.readSessionID(&body)
        try Self.readCipherSuites(&body)
        let compression = try body.readPartOfLength8()
        guard !compression.isAtEnd else { throw WireError(offset: body.offset, problem: "no compression method") }

        var extensions = Extensions()
        // SSL 3.0 and TLS 1.0 clients may end here (RFC 5246 7.4.1.2).
        if !body.isAtEnd { try extensions.read(from: try body.readPartOfLength16()) }
        try body.finish("bytes follow the extensions")

        self.serverName = extensions.serverName
        self.hasEncryptedClientHello = extensions.hasEncryptedClientHello
        self.alpn = extensions.alpn
        self.length = length
    }

    private static func readSessionID(_ body: inout ByteReader) throws(WireError) {
        let offset = body.offset
        guard try body.readPartOfLength8().remaining <= 32 else {
            throw WireError(offset: offset, problem: "the session id is longer than 32 bytes")
        }
    }

    private static func readCipherSuites(_ body: inout ByteReader) throws(WireError) {
        let offset = body.offset
        let suites = try body.readPartOfLength16()
        guard !suites.isAtEnd, suites.remaining % 2 == 0 else {
            throw WireError(offset: offset, problem: "the cipher suites are no list of pairs of bytes")
        }
    }
}

// MARK: - Extensions

/// What the extensions say.
private struct Extensions {
    var serverName = ClientHello.ServerName.absent
    var hasEncryptedClientHello = false
    var alpn: [[UInt8]] = []

    mutating func read(from list: ByteReader) throws(WireError) {
        var list = list
        var seen = SeenTypes()
        while !list.isAtEnd {
            let offset = list.offset
            let type = try list.readUInt16()
            let data = try list.readPartOfLength16()
            // Which of two a server would take is anybody's guess (RFC 8446 4.2 forbids it).
            guard seen.insert(type) else {
                throw WireError(offset: offset, problem: "an extension is there twice")
            }
            switch type {
            case 0: serverName = try Self.readServerName(data)
            case 16: alpn = try Self.readProtocols(data)
            // The final code point, those of the drafts that were deployed, and ESNI before them.
            case 0xfe08...0xfe0d, 0xffce: hasEncryptedClientHello = true
            default: break
            }
        }
    }

    /// Lengths that lie are an error; a list that is well-formed but not one plain host name is a malformed name.
    private static func readServerName(_ data: ByteReader) throws(WireError) -> ClientHello.ServerName {
        var data = data
        if data.isAtEnd { return .malformed }
        var list = try data.readPartOfLength16()
        try data.finish("bytes follow the server name list")
        var names: [(type: UInt8, bytes: [UInt8])] = []
        while !list.isAtEnd {
            let type = try list.readUInt8()
            names.append((type, try list.readPartOfLength16().rest))
        }
        guard names.count == 1, let only = names.first, only.type == 0, only.bytes.last != UInt8(ascii: "."),
            let name = try? DomainName(ascii: only.bytes)
        else { return .malformed }
        return .name(name)
    }

    private static func readProtocols(_ data: ByteReader) throws(WireError) -> [[UInt8]] {
        var data = data
        var list = try data.readPartOfLength16()
        try data.finish("bytes follow the protocol list")
        guard !list.isAtEnd else { throw WireError(offset: list.offset, problem: "the protocol list is empty") }
        var protocols: [[UInt8]] = []
        while !list.isAtEnd {
            let name = try list.readPartOfLength8()
            guard !name.isAtEnd else { throw WireError(offset: name.offset, problem: "a protocol name is empty") }
            protocols.append(name.rest)
        }
        return protocols
    }
}

/// The types of extensions that were seen. A few are kept in place: what clients send is no reason to allocate.
private struct SeenTypes {
    private var few = InlineArray<24, UInt16>(repeating: 0)
    private var count = 0
    private var others: Set<UInt16> = []

    /// Whether it is the first of its type.
    mutating func insert(_ type: UInt16) -> Bool {
        for index in 0..<count where few[index] == type { return false }
        guard count < few.count else { return others.insert(type).inserted }
        few[count] = type
        count += 1
        return true
    }
}
