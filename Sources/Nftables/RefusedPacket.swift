public import NetPrimitives

/// A packet that the kernel refused: who sent what where. Read from the packet's first bytes.
public struct RefusedPacket: Hashable, Sendable {
    /// The address family.
    public let family: IPAddress.Family
    /// The protocol above IP (IANA number): 6 is TCP, 17 UDP, 1 and 58 are ICMP.
    public let ipProtocol: UInt8
    /// Where it came from.
    public let source: IPAddress
    /// Where it was to go.
    public let destination: IPAddress
    /// The port it came from; `nil` for protocols without ports and for later fragments.
    public let sourcePort: UInt16?
    /// The port it was to go to; `nil` for protocols without ports and for later fragments.
    public let destinationPort: UInt16?
    /// The user whose socket sent it, in the namespace of whoever reads; `nil` when the kernel does not say.
    public let uid: UInt32?
    /// The prefix of the rule that recorded it.
    public let prefix: String

    /// Reads an IP packet, which may be cut off after its addresses; `nil` when it is malformed before that.
    init?(packet bytes: ArraySlice<UInt8>, uid: UInt32?, prefix: String) {
        guard let header = IPHeader(bytes) else { return nil }
        self.family = header.source.family
        self.ipProtocol = header.ipProtocol
        self.source = header.source
        self.destination = header.destination
        let ports = header.ports
        self.sourcePort = ports?.source
        self.destinationPort = ports?.destination
        self.uid = uid
        self.prefix = prefix
    }
}

/// The parts of an IP packet that a record names. Nothing is read beyond the bytes that are there.
private struct IPHeader {
    let source: IPAddress
    let destination: IPAddress
    let ipProtocol: UInt8
    let ports: (source: UInt16, destination: UInt16)?

    init?(_ bytes: ArraySlice<UInt8>) {
        switch bytes.first.map({ $0 >> 4 }) {
        case 4: self.init(version4: Array(bytes))
        case 6: self.init(version6: Array(bytes))
        default: return nil
        }
    }

    /// RFC 791 3.1.
    private init?(version4 bytes: [UInt8]) {
        let headerLength = Int(bytes[0] & 0x0f) * 4
        guard headerLength >= 20, bytes.count >= 20, let source = IPAddress(networkBytes: bytes[12..<16]),
            let destination = IPAddress(networkBytes: bytes[16..<20])
        else { return nil }
        self.source = source
        self.destination = destination
        self.ipProtocol = bytes[9]
        let isLaterFragment = bytes[6] & 0x1f != 0 || bytes[7] != 0
        self.ports = isLaterFragment ? nil : Self.ports(bytes, at: headerLength, protocol: bytes[9])
    }

    /// RFC 8200 3 and 4: the protocol is what comes after the extension headers.
    private init?(version6 bytes: [UInt8]) {
        guard bytes.count >= 40, let source = IPAddress(networkBytes: bytes[8..<24]),
            let destination = IPAddress(networkBytes: bytes[24..<40])
        else { return nil }
        self.source = source
        self.destination = destination
        var next = bytes[6]
        var offset = 40
        // Each turn moves on by at least 8 bytes.
        while bytes.count - offset >= 8 {
            switch next {
            case 0, 43, 60, 135:  // hop-by-hop, routing, destination options, mobility
                next = bytes[offset]
                offset += (Int(bytes[offset + 1]) + 1) * 8
            case 51:  // authentication, RFC 4302 2.2: counts in 4 bytes
                next = bytes[offset]
                offset += (Int(bytes[offset + 1]) + 2) * 4
            case 44:
                next = bytes[offset]
                let isLaterFragment = bytes[offset + 2] != 0 || bytes[offset + 3] & 0xf8 != 0
                if isLaterFragment {
                    self.ipProtocol = next
                    self.ports = nil
                    return
                }
                offset += 8
            default:
                self.ipProtocol = next
                self.ports = Self.ports(bytes, at: offset, protocol: next)
                return
            }
        }
        self.ipProtocol = next
        self.ports = Self.ports(bytes, at: offset, protocol: next)
    }

    /// TCP, UDP, DCCP, SCTP and UDP-Lite begin with both ports.
    private static func ports(
        _ bytes: [UInt8],
        at offset: Int,
        protocol number: UInt8
    ) -> (source: UInt16, destination: UInt16)? {
        guard [6, 17, 33, 132, 136].contains(number), bytes.count - offset >= 4 else { return nil }
        func port(_ index: Int) -> UInt16 { UInt16(bytes[index]) << 8 | UInt16(bytes[index + 1]) }
        return (port(offset), port(offset + 2))
    }
}
