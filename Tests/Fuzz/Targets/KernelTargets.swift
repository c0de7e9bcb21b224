import NetPrimitives

@testable import Nftables

extension FuzzTarget {
    /// A datagram of the kernel's: acknowledgements, refused packets, pins, flows.
    static let netlink = FuzzTarget(name: "netlink") { bytes in
        var total = 0
        for message in NetlinkMessages(bytes) {
            total += 16 + message.payload.count
            if let reply = NetlinkReply(message) { require(reply.errno > .min, "an error without a number") }
            _ = RefusalLog.read(message)
            _ = Conntrack.read(message)
            for family in [IPAddress.Family.v4, .v6] {
                for pin in KernelPin.read(message, family) {
                    require(pin.address.family == family, "a pin of another family")
                }
            }
            checkAttributes(message.payload, depth: 0)
        }
        require(total <= bytes.count, "more messages than bytes")
    }

    private static func checkAttributes(_ bytes: ArraySlice<UInt8>, depth: Int) {
        var total = 0
        for attribute in NetlinkAttributes(bytes) {
            total += 4 + attribute.payload.count
            _ = (attribute.bigEndian32, attribute.bigEndian64, attribute.text)
            if depth < 4 { checkAttributes(attribute.payload, depth: depth + 1) }
        }
        require(total <= bytes.count, "more attributes than bytes")
    }

    /// A packet that the kernel refused, cut off anywhere.
    static let refusedPacket = FuzzTarget(name: "refused-packet") { bytes in
        let packet = RefusedPacket(packet: bytes[...], uid: nil, prefix: "p")
        let moved = RefusedPacket(packet: ([0xff, 0xff] + bytes)[2...], uid: nil, prefix: "p")
        require(packet == moved, "it matters where the packet stands")
        guard let packet else { return }
        require(packet.source.family == packet.family && packet.destination.family == packet.family, "two families")
        require((packet.sourcePort == nil) == (packet.destinationPort == nil), "one port only")
        // The kernel hands over the first bytes only: more of them must not change what the first ones said.
        for prefix in Pieces.prefixes(of: bytes) {
            guard let short = RefusedPacket(packet: prefix[...], uid: nil, prefix: "p") else { continue }
            require(short.destination == packet.destination, "the destination depends on what follows")
            require(short.destinationPort == nil || short.destinationPort == packet.destinationPort, "another port")
        }
    }
}
