import NetPrimitives

/// An ICMP message that tells a program that its datagram got nowhere, as a router or the other host would have told
/// it. It is written about the datagram as our socket received it; the kernel translates both back (RFC 5508 4.2), and
/// the program's connected socket reports the error at its next call.
enum UnreachableNotice: Hashable, Sendable {
    /// The policy forbids it: EHOSTUNREACH over IPv4, EACCES over IPv6.
    case prohibited
    /// Nobody listens there: ECONNREFUSED.
    case portUnreachable
    /// No way leads there: EHOSTUNREACH.
    case hostUnreachable

    /// Type and code: RFC 792, RFC 1812 5.2.7.1 and RFC 4443 3.1.
    private func header(_ family: IPAddress.Family) -> [UInt8] {
        switch (self, family) {
        case (.prohibited, .v4): [3, 13]
        case (.portUnreachable, .v4): [3, 3]
        case (.hostUnreachable, .v4): [3, 1]
        case (.prohibited, .v6): [1, 1]
        case (.portUnreachable, .v6): [1, 4]
        case (.hostUnreachable, .v6): [1, 3]
        }
    }

    /// The message about a datagram from `source` that `listener` received: its headers without their payload. The
    /// checksum of ICMPv6 is the kernel's to fill in.
    func message(from source: Endpoint, to listener: Endpoint) -> [UInt8] {
        let family = source.address.family
        let transport = source.port.networkBytes + listener.port.networkBytes + [0, 8, 0, 0]
        let addresses = source.address.networkBytes + listener.address.networkBytes
        var message = header(family) + [0, 0, 0, 0, 0, 0]
        switch family {
        case .v4:
            // RFC 791 3.1: version and length, total length, hop limit, protocol.
            var packet: [UInt8] = [0x45, 0, 0, 28, 0, 0, 0, 0, 64, TransportProtocol.udp.rawValue, 0, 0] + addresses
            packet.replaceSubrange(10...11, with: Self.checksum(packet).networkBytes)
            message += packet + transport
            message.replaceSubrange(2...3, with: Self.checksum(message).networkBytes)
        case .v6:
            // RFC 8200 3: version, payload length, next header, hop limit.
            message += [0x60, 0, 0, 0, 0, 8, TransportProtocol.udp.rawValue, 64] + addresses + transport
        }
        return message
    }

    /// The Internet checksum (RFC 1071) of an even number of bytes.
    private static func checksum(_ bytes: [UInt8]) -> UInt16 {
        var sum: UInt32 = 0
        for index in stride(from: 0, to: bytes.count, by: 2) {
            sum += UInt32(bytes[index]) << 8 | UInt32(bytes[index + 1])
        }
        while sum > 0xffff { sum = sum >> 16 + sum & 0xffff }
        return ~UInt16(sum)
    }
}

extension UInt16 {
    /// The two bytes in network order.
    fileprivate var networkBytes: [UInt8] { [UInt8(self >> 8), UInt8(truncatingIfNeeded: self)] }
}
