public import NetPrimitives

/// A query that we send to an upstream server. An answer is believed only when it gives back the identifier and the
/// name in exactly this mixture of cases, which a forger would have to guess (draft-vixie-dnsext-dns0x20).
public struct DNSUpstreamQuery: Hashable, Sendable {
    /// The identifier.
    public let id: UInt16
    /// The question, its name in random case.
    public let question: DNSQuestion
    /// Whether signatures are asked for.
    public let isDNSSECOK: Bool

    /// A query for `name`; the identifier is drawn from `generator`, and unless it is `inLowerCase`, for a server that tells
    /// cases apart, the case of every letter.
    public init(
        _ name: DomainName,
        _ type: DNSRecordType,
        isDNSSECOK: Bool,
        inLowerCase: Bool = false,
        using generator: inout some RandomNumberGenerator
    ) {
        id = UInt16(truncatingIfNeeded: generator.next())
        self.isDNSSECOK = isDNSSECOK
        guard !inLowerCase else {
            question = DNSQuestion(DNSWireName(name), type)
            return
        }
        var bytes = DNSWireName(name).bytes
        let letters = UInt8(ascii: "a")...UInt8(ascii: "z")
        bytes.withUnsafeMutableBytes { bytes in
            var bits: UInt64 = 0
            for index in bytes.indices {
                if index % 64 == 0 { bits = generator.next() }
                if letters.contains(bytes[index]), bits & 1 == 1 { bytes[index] &= 0xdf }
                bits >>= 1
            }
        }
        question = DNSQuestion(DNSWireName(wire: bytes), type)
    }

    /// The message: RD and AD set, EDNS with room for 1,232 bytes and no option.
    public func encode() -> [UInt8] {
        var writer = DNSWriter()
        writer.append(id)
        writer.append(0x0120)
        writer.append(1)
        writer.append(0)
        writer.append(0)
        writer.append(1)
        // No other name follows that could point to this one.
        writer.append(question.name.bytes)
        writer.append(question.type.rawValue)
        writer.append(question.recordClass)
        writer.append(byte: 0)
        writer.append(DNSRecordType.opt.rawValue)
        writer.append(UInt16(DNSResponse.maximumUDPSize))
        writer.append(byte: 0)
        writer.append(byte: 0)
        writer.append(isDNSSECOK ? 0x8000 : 0)
        writer.append(0)
        return writer.bytes
    }

    /// Whether `message` answers this query and not another.
    public func isAnswered(by message: DNSMessage) -> Bool {
        message.isResponse && message.opcode == 0 && message.id == id && message.questions == [question]
    }
}
