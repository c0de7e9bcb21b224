/// An answer to a client's query. Encoding echoes the question in the client's case and keeps to the size the client can
/// take.
public struct DNSResponse: Hashable, Sendable {
    /// How the answer travels, which says how large it may be.
    public enum Transport: Hashable, Sendable {
        /// One datagram: 512 bytes, or what the client's OPT record says, up to 1,232 (no fragments, DNS flag day 2020).
        case udp
        /// A stream: 65,535 bytes.
        case tcp
    }

    /// How the query ended.
    public var code: DNSResponseCode
    /// The answer section; records owned by the question's name first.
    public var answers: [DNSResourceRecord]
    /// The authority section.
    public var authorities: [DNSResourceRecord]
    /// Why, for clients that speak EDNS.
    public var extendedError: DNSExtendedError?
    /// Whether the upstream server vouches for the signatures of all of it.
    public var isAuthenticData = false

    /// An answer from its parts.
    public init(
        _ code: DNSResponseCode,
        answers: [DNSResourceRecord] = [],
        authorities: [DNSResourceRecord] = [],
        extendedError: DNSExtendedError? = nil
    ) {
        self.code = code
        self.answers = answers
        self.authorities = authorities
        self.extendedError = extendedError
    }
}

extension DNSResponse {
    /// The largest UDP message that is sent and asked for.
    public static let maximumUDPSize = 1_232

    /// The message that answers `query`. When it does not fit, the sections are left out and TC is set: the client asks
    /// again over TCP. Over TCP an answer that does not fit becomes SERVFAIL.
    public func encode(for query: DNSQuery, over transport: Transport) -> [UInt8] {
        let limit: Int
        switch transport {
        case .udp: limit = min(max(Int(query.edns?.udpSize ?? 512), 512), Self.maximumUDPSize)
        case .tcp: limit = 65_535
        }
        var writer = DNSWriter()
        if write(to: &writer, query, answers, authorities, limit: limit) { return writer.bytes }
        writer = DNSWriter()
        var short = self
        if transport == .tcp { short.code = .serverFailure }
        _ = short.write(to: &writer, query, [], [], isTruncated: transport == .udp, limit: limit)
        return writer.bytes
    }

    /// Writes the message; `false` as soon as it is larger than `limit`.
    private func write(
        to writer: inout DNSWriter,
        _ query: DNSQuery,
        _ answers: [DNSResourceRecord],
        _ authorities: [DNSResourceRecord],
        isTruncated: Bool = false,
        limit: Int
    ) -> Bool {
        // Without EDNS there is no room for the upper bits, but neither is there a version to refuse.
        var flags: UInt16 = 0x8080 | code.rawValue & 0xf
        if isTruncated { flags |= 0x0200 }
        if query.recursionDesired { flags |= 0x0100 }
        if isAuthenticData && (query.wantsAuthenticData || query.edns?.isDNSSECOK == true) { flags |= 0x0020 }
        if query.checkingDisabled { flags |= 0x0010 }
        writer.append(query.id)
        writer.append(flags)
        writer.append(1)
        writer.append(UInt16(truncatingIfNeeded: answers.count))
        writer.append(UInt16(truncatingIfNeeded: authorities.count))
        writer.append(query.edns == nil ? 0 : 1)
        writer.appendQuestion(query.wireName, query.type)
        for record in answers {
            writer.append(record)
            if writer.bytes.count > limit { return false }
        }
        for record in authorities {
            writer.append(record)
            if writer.bytes.count > limit { return false }
        }
        if let edns = query.edns { appendOptions(to: &writer, edns) }
        return writer.bytes.count <= limit
    }

    private func appendOptions(to writer: inout DNSWriter, _ edns: DNSQuery.EDNS) {
        writer.append(byte: 0)
        writer.append(DNSRecordType.opt.rawValue)
        writer.append(UInt16(Self.maximumUDPSize))
        writer.append(byte: UInt8(truncatingIfNeeded: code.rawValue >> 4))
        writer.append(byte: 0)
        writer.append(edns.isDNSSECOK ? 0x8000 : 0)
        guard let extendedError else { return writer.append(0) }
        // The text is ours but names the asked host: keep it well below the smallest message.
        let text = Array(extendedError.text.utf8.prefix(160))
        writer.append(UInt16(6 + text.count))
        writer.append(15)  // the option EDE, RFC 8914 2
        writer.append(UInt16(2 + text.count))
        writer.append(extendedError.code)
        writer.append(text)
    }
}
