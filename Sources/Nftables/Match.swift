import CNftnl
import Glibc
import NetPrimitives

/// Conditions and statements as nft(8) has them, each made of the expressions that nft makes of it.
extension [Expression] {
    /// `meta nfproto ipv4`, which nft adds before it looks at an IPv4 header.
    static func family(_ family: IPAddress.Family) -> Self {
        [.meta(NFT_META_NFPROTO), .compare(NFT_CMP_EQ, [UInt8(family == .v4 ? NFPROTO_IPV4 : NFPROTO_IPV6)])]
    }

    /// `meta l4proto tcp`.
    static func protocolNumber(_ number: UInt8) -> Self {
        [.meta(NFT_META_L4PROTO), .compare(NFT_CMP_EQ, [number])]
    }

    /// `tcp dport 53`.
    static func destinationPort(_ transport: TransportProtocol, _ port: UInt16) -> Self {
        protocolNumber(transport.rawValue) + [
            .payload(NFT_PAYLOAD_TRANSPORT_HEADER, offset: 2, length: 2),
            .compare(NFT_CMP_EQ, port.bigEndianBytes),
        ]
    }

    /// `udp dport @pinned_ports`.
    static func destinationPort(_ transport: TransportProtocol, in set: LookupSet) -> Self {
        protocolNumber(transport.rawValue) + port(in: set)
    }

    /// `tcp dport @served_ports`, where the rule has asked for the protocol already.
    static func port(in set: LookupSet) -> Self {
        [.payload(NFT_PAYLOAD_TRANSPORT_HEADER, offset: 2, length: 2), .lookup(set: set.name)]
    }

    /// `ip daddr 127.0.0.0/8`: as nft does, compares whole bytes without a mask where the prefix has only such.
    static func destination(_ prefix: IPPrefix) -> Self { address(prefix, destinationAddress) }

    /// `ip saddr 127.0.0.0/8`.
    static func source(_ prefix: IPPrefix) -> Self { address(prefix, sourceAddress) }

    private static func address(
        _ prefix: IPPrefix,
        _ load: (IPAddress.Family, _ length: Int) -> Expression
    ) -> Self {
        let bytes = prefix.address.networkBytes
        let isWholeBytes = prefix.length % 8 == 0
        let length = isWholeBytes ? prefix.length / 8 : bytes.count
        var result = family(prefix.address.family)
        result.append(load(prefix.address.family, length))
        if !isWholeBytes {
            result.append(
                .bitwise(
                    mask: bytes.indices.map { index in
                        let bits = Swift.min(Swift.max(prefix.length - 8 * index, 0), 8)
                        return UInt8(truncatingIfNeeded: 0xff00 >> bits)
                    }
                )
            )
        }
        result.append(.compare(NFT_CMP_EQ, Array<UInt8>(bytes.prefix(length))))
        return result
    }

    /// `ip daddr @pinned4`.
    static func destination(_ family: IPAddress.Family, in set: LookupSet) -> Self {
        Self.family(family) + [destinationAddress(family, length: set.key.length), .lookup(set: set.name)]
    }

    /// `oif lo` and `oif != lo`. By index, which no renaming changes.
    static func outputDevice(isLoopback: Bool) -> Self {
        device(NFT_META_OIF, isLoopback: isLoopback)
    }

    /// `iif lo`.
    static let inputDeviceIsLoopback = device(NFT_META_IIF, isLoopback: true)

    /// `iif != lo`.
    static let inputDeviceIsOuter = device(NFT_META_IIF, isLoopback: false)

    /// `meta skuid != 4294967295`: the packet comes from a program's socket. No user has this number, and a packet of
    /// the kernel's own has none, which ends the rule.
    static let fromProgram: Self = [.meta(NFT_META_SKUID), .compare(NFT_CMP_NEQ, UInt32.max.hostBytes)]

    /// `ct status dnat`.
    static let redirected: Self = [
        .conntrack(NFT_CT_STATUS), .bitwise(mask: UInt32(IPS_DST_NAT.rawValue).hostBytes),
        .compare(NFT_CMP_NEQ, UInt32(0).hostBytes),
    ]

    /// `ct state established,related`: NF_CT_STATE_BIT of IP_CT_ESTABLISHED and of IP_CT_RELATED.
    static let answer: Self = [
        .conntrack(NFT_CT_STATE), .bitwise(mask: UInt32(0b110).hostBytes), .compare(NFT_CMP_NEQ, UInt32(0).hostBytes),
    ]

    /// `ct state established`: NF_CT_STATE_BIT of IP_CT_ESTABLISHED.
    static let established: Self = [
        .conntrack(NFT_CT_STATE), .bitwise(mask: UInt32(0b10).hostBytes), .compare(NFT_CMP_NEQ, UInt32(0).hostBytes),
    ]

    /// `ct mark 2`: the flow was let in from outside.
    static let served: Self = [.conntrack(NFT_CT_MARK), .compare(NFT_CMP_EQ, SandboxRuleset.servedMark.hostBytes)]

    /// `ct mark set 2`.
    static let markAsServed: Self = [.immediate(SandboxRuleset.servedMark.hostBytes), .setConntrackMark]

    /// `ct direction reply`: from whom was spoken to.
    static let reply: Self = [.conntrack(NFT_CT_DIRECTION), .compare(NFT_CMP_EQ, [UInt8(IP_CT_DIR_REPLY.rawValue)])]

    /// `ct state new`: NF_CT_STATE_BIT of IP_CT_NEW.
    static let new: Self = [
        .conntrack(NFT_CT_STATE), .bitwise(mask: UInt32(0b1000).hostBytes), .compare(NFT_CMP_NEQ, UInt32(0).hostBytes),
    ]

    /// `tcp flags & (fin | syn | rst | ack) == syn`: a connection begins (RFC 9293 3.1).
    static let connectionBegins: Self =
        protocolNumber(TransportProtocol.tcp.rawValue) + [
            .payload(NFT_PAYLOAD_TRANSPORT_HEADER, offset: 13, length: 1), .bitwise(mask: [0b1_0111]),
            .compare(NFT_CMP_EQ, [0b10]),
        ]

    /// `fib saddr type local`.
    static let fromLocalAddress: Self = [.sourceAddressType, .compare(NFT_CMP_EQ, UInt32(RTN_LOCAL).hostBytes)]

    /// `icmpv6 type nd-neighbor-solicit ip6 hoplimit 255 ip6 length <= 32`: a whole neighbour solicitation or
    /// advertisement with one link-layer address option (RFC 4861 4.3, 4.4), never forwarded.
    static func neighbourDiscovery(type: UInt8) -> Self {
        family(.v6) + icmpV6(.compare(NFT_CMP_EQ, [type])) + [
            .payload(NFT_PAYLOAD_NETWORK_HEADER, offset: 7, length: 1), .compare(NFT_CMP_EQ, [255]),
            .payload(NFT_PAYLOAD_NETWORK_HEADER, offset: 4, length: 2),
            .compare(NFT_CMP_LTE, UInt16(32).bigEndianBytes),
        ]
    }

    /// `icmpv6 type 131-133`.
    static func icmpV6(types: ClosedRange<UInt8>) -> Self {
        family(.v6)
            + icmpV6(.compare(NFT_CMP_GTE, [types.lowerBound]), .compare(NFT_CMP_LTE, [types.upperBound]))
    }

    /// `icmpv6 type 143`.
    static func icmpV6(type: UInt8) -> Self {
        family(.v6) + icmpV6(.compare(NFT_CMP_EQ, [type]))
    }

    /// `meta mark 0x… meta priority 0x…`: from one of our own sockets.
    static func from(_ pass: UpstreamPass) -> Self {
        [
            .meta(NFT_META_MARK), .compare(NFT_CMP_EQ, pass.mark.hostBytes), .meta(NFT_META_PRIORITY),
            .compare(NFT_CMP_EQ, pass.priority.hostBytes),
        ]
    }

    /// `meta priority 0x…`: as our own sockets have it, which the kernel tells to everybody.
    static func priority(of pass: UpstreamPass) -> Self {
        [.meta(NFT_META_PRIORITY), .compare(NFT_CMP_EQ, pass.priority.hostBytes)]
    }

    /// `meta priority 0x… meta mark != 0x…`: from somebody who has found out one half of a pass, and tries the other.
    static func guessing(_ pass: UpstreamPass) -> Self {
        priority(of: pass) + [.meta(NFT_META_MARK), .compare(NFT_CMP_NEQ, pass.mark.hostBytes)]
    }

    /// `ct original zone 7`: of a flow that one of our own sockets began.
    static let upstreamFlow: Self = [
        .conntrackZone, .compare(NFT_CMP_EQ, SandboxRuleset.upstreamZone.hostBytes),
    ]

    /// `ct original zone set 7`.
    static let markAsUpstream: Self = [.immediate(SandboxRuleset.upstreamZone.hostBytes), .setConntrackZone]

    /// `meta mark set 0 meta priority set 0`.
    static let withoutPass: Self = [
        .immediate(UInt32(0).hostBytes), .setMeta(NFT_META_MARK), .setMeta(NFT_META_PRIORITY),
    ]

    /// `meta mark set 0x… meta priority set 0x…`.
    static func give(_ pass: UpstreamPass) -> Self {
        [
            .immediate(pass.mark.hostBytes), .setMeta(NFT_META_MARK), .immediate(pass.priority.hostBytes),
            .setMeta(NFT_META_PRIORITY),
        ]
    }

    /// `meta protocol arp ether type arp meta length 42`: a frame of Ethernet with a whole ARP message (RFC 826) and nothing
    /// behind it. A packet socket says itself which protocol its frame has (packet(7)), so the frame's own word counts too.
    static let addressResolution: Self = [
        .meta(NFT_META_PROTOCOL), .compare(NFT_CMP_EQ, KernelConstants.etherTypeARP.bigEndianBytes),
        .payload(NFT_PAYLOAD_LL_HEADER, offset: 12, length: 2),
        .compare(NFT_CMP_EQ, KernelConstants.etherTypeARP.bigEndianBytes), .meta(NFT_META_LEN),
        .compare(NFT_CMP_EQ, UInt32(42).hostBytes),
    ]

    /// `redirect to :1053`.
    static func redirect(to port: UInt16) -> Self { [.immediate(port.bigEndianBytes), .redirect] }

    static let accept: Self = [.verdict(.accept)]
    static let drop: Self = [.verdict(.drop)]
    static let `return`: Self = [.verdict(.return)]
    static func goto(_ chain: Chain) -> Self { [.verdict(.goto(chain.name))] }

    private static func icmpV6(_ comparisons: Expression...) -> Self {
        protocolNumber(UInt8(IPPROTO_ICMPV6)) + [.payload(NFT_PAYLOAD_TRANSPORT_HEADER, offset: 0, length: 1)]
            + comparisons
    }

    // RFC 791 3.1 and RFC 8200 3.

    private static func sourceAddress(_ family: IPAddress.Family, length: Int) -> Expression {
        .payload(NFT_PAYLOAD_NETWORK_HEADER, offset: family == .v4 ? 12 : 8, length: UInt32(length))
    }

    private static func destinationAddress(_ family: IPAddress.Family, length: Int) -> Expression {
        .payload(NFT_PAYLOAD_NETWORK_HEADER, offset: family == .v4 ? 16 : 24, length: UInt32(length))
    }

    private static func device(_ key: nft_meta_keys, isLoopback: Bool) -> Self {
        [.meta(key), .compare(isLoopback ? NFT_CMP_EQ : NFT_CMP_NEQ, KernelConstants.loopbackIndex.hostBytes)]
    }
}

extension UInt16 {
    /// The two bytes in network order.
    var bigEndianBytes: [UInt8] { [UInt8(self >> 8), UInt8(truncatingIfNeeded: self)] }

    /// The two bytes in the order of this machine.
    var hostBytes: [UInt8] { withUnsafeBytes(of: self) { Array($0) } }
}

extension UInt32 {
    /// The four bytes in the order of this machine.
    var hostBytes: [UInt8] { withUnsafeBytes(of: self) { Array($0) } }
}
