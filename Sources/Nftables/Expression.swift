import CNftnl
import Glibc

/// One step of a rule, as the kernel has it. Every load goes to register 1 and every comparison reads it there: no
/// rule of ours needs two values at once.
enum Expression: Hashable, Sendable {
    /// Loads a property of the packet that is not in its bytes (enum nft_meta_keys).
    case meta(nft_meta_keys)
    /// Loads a property of the packet's conntrack entry (enum nft_ct_keys).
    case conntrack(nft_ct_keys)
    /// Stores the value loaded as the mark of the packet's conntrack entry.
    case setConntrackMark
    /// Loads the zone of the packet's conntrack entry in its original direction.
    case conntrackZone
    /// Stores the value loaded as that zone, for a packet that has no entry yet.
    case setConntrackZone
    /// Stores the value loaded as a property of the packet.
    case setMeta(nft_meta_keys)
    /// Loads `length` bytes at `offset` of a header.
    case payload(nft_payload_bases, offset: UInt32, length: UInt32)
    /// Loads what kind of address the source is (RTN_…, linux/rtnetlink.h).
    case sourceAddressType
    /// Keeps only the bits of `mask`.
    case bitwise(mask: [UInt8])
    /// Ends the rule unless the comparison holds.
    case compare(nft_cmp_ops, [UInt8])
    /// Ends the rule unless the set has the loaded value.
    case lookup(set: String)
    /// Adds the loaded value to a set, or has it expire anew that many milliseconds from now.
    case remember(set: String, milliseconds: UInt64)
    /// Loads a constant.
    case immediate([UInt8])
    case verdict(Verdict)
    /// Redirects to this machine, to the port loaded.
    case redirect
    case reject(Rejection)
    /// Hands at most `packetBytes` of the packet to NFLOG, in datagrams of `threshold` packets.
    case log(prefix: String, group: UInt16, packetBytes: UInt32, threshold: UInt16)
    /// Ends the rule above a rate.
    case limit(packetsPerSecond: UInt64, burst: UInt32)
    case counter

    enum Verdict: Hashable, Sendable {
        case accept
        case drop
        case `return`
        case goto(String)
    }

    enum Rejection: Hashable, Sendable {
        case tcpReset
        /// ICMP or ICMPv6, "communication administratively prohibited".
        case adminProhibited
    }
}

extension nft_meta_keys: @retroactive Hashable {}
extension nft_ct_keys: @retroactive Hashable {}
extension nft_payload_bases: @retroactive Hashable {}
extension nft_cmp_ops: @retroactive Hashable {}

extension Expression {
    /// The expression for libnftnl; whoever gets it frees it or hands it to a rule that does.
    func make() -> OpaquePointer {
        switch self {
        case .meta(let key):
            return Self.make("meta", (NFTNL_EXPR_META_KEY, key.rawValue), (NFTNL_EXPR_META_DREG, Self.register))
        case .conntrack(let key):
            return Self.make("ct", (NFTNL_EXPR_CT_KEY, key.rawValue), (NFTNL_EXPR_CT_DREG, Self.register))
        case .payload(let base, let offset, let length):
            return Self.make(
                "payload",
                (NFTNL_EXPR_PAYLOAD_BASE, base.rawValue),
                (NFTNL_EXPR_PAYLOAD_OFFSET, offset),
                (NFTNL_EXPR_PAYLOAD_LEN, length),
                (NFTNL_EXPR_PAYLOAD_DREG, Self.register)
            )
        case .sourceAddressType:
            return Self.make(
                "fib",
                (NFTNL_EXPR_FIB_RESULT, NFT_FIB_RESULT_ADDRTYPE.rawValue),
                (NFTNL_EXPR_FIB_FLAGS, NFTA_FIB_F_SADDR.rawValue),
                (NFTNL_EXPR_FIB_DREG, Self.register)
            )
        case .bitwise(let mask):
            let expression = Self.make(
                "bitwise",
                (NFTNL_EXPR_BITWISE_SREG, Self.register),
                (NFTNL_EXPR_BITWISE_DREG, Self.register),
                (NFTNL_EXPR_BITWISE_LEN, UInt32(mask.count))
            )
            Self.set(expression, NFTNL_EXPR_BITWISE_MASK, mask)
            Self.set(expression, NFTNL_EXPR_BITWISE_XOR, [UInt8](repeating: 0, count: mask.count))
            return expression
        case .compare(let operation, let value):
            let expression = Self.make(
                "cmp",
                (NFTNL_EXPR_CMP_SREG, Self.register),
                (NFTNL_EXPR_CMP_OP, operation.rawValue)
            )
            Self.set(expression, NFTNL_EXPR_CMP_DATA, value)
            return expression
        case .immediate(let value):
            let expression = Self.make("immediate", (NFTNL_EXPR_IMM_DREG, Self.register))
            Self.set(expression, NFTNL_EXPR_IMM_DATA, value)
            return expression
        case .setConntrackMark:
            return Self.make(
                "ct",
                (NFTNL_EXPR_CT_KEY, NFT_CT_MARK.rawValue),
                (NFTNL_EXPR_CT_SREG, Self.register)
            )
        case .conntrackZone:
            return Self.makeZone((NFTNL_EXPR_CT_DREG, Self.register))
        case .setConntrackZone:
            return Self.makeZone((NFTNL_EXPR_CT_SREG, Self.register))
        case .setMeta(let key):
            return Self.make("meta", (NFTNL_EXPR_META_KEY, key.rawValue), (NFTNL_EXPR_META_SREG, Self.register))
        case .lookup, .remember, .verdict, .redirect, .reject, .log, .limit, .counter:
            return makeStatement()
        }
    }

    private func makeStatement() -> OpaquePointer {
        switch self {
        case .lookup(let set):
            let expression = Self.make("lookup", (NFTNL_EXPR_LOOKUP_SREG, Self.register))
            nftnl_expr_set_str(expression, UInt16(NFTNL_EXPR_LOOKUP_SET), set)
            return expression
        case .remember(let set, let milliseconds):
            let expression = Self.make(
                "dynset",
                (NFTNL_EXPR_DYNSET_OP, NFT_DYNSET_OP_UPDATE.rawValue),
                (NFTNL_EXPR_DYNSET_SREG_KEY, Self.register)
            )
            nftnl_expr_set_str(expression, UInt16(NFTNL_EXPR_DYNSET_SET_NAME), set)
            nftnl_expr_set_u64(expression, UInt16(NFTNL_EXPR_DYNSET_TIMEOUT), milliseconds)
            return expression
        case .verdict(let verdict):
            let expression = Self.make(
                "immediate",
                (NFTNL_EXPR_IMM_DREG, NFT_REG_VERDICT.rawValue),
                (NFTNL_EXPR_IMM_VERDICT, UInt32(bitPattern: verdict.code))
            )
            if case .goto(let chain) = verdict { nftnl_expr_set_str(expression, UInt16(NFTNL_EXPR_IMM_CHAIN), chain) }
            return expression
        case .redirect:
            return Self.make(
                "redir",
                (NFTNL_EXPR_REDIR_REG_PROTO_MIN, Self.register),
                (NFTNL_EXPR_REDIR_FLAGS, UInt32(NF_NAT_RANGE_PROTO_SPECIFIED))
            )
        case .reject(let rejection):
            let isReset = rejection == .tcpReset
            let type = isReset ? NFT_REJECT_TCP_RST : NFT_REJECT_ICMPX_UNREACH
            let expression = Self.make("reject", (NFTNL_EXPR_REJECT_TYPE, UInt32(type.rawValue)))
            let code = isReset ? 0 : UInt8(NFT_REJECT_ICMPX_ADMIN_PROHIBITED.rawValue)
            nftnl_expr_set_u8(expression, UInt16(NFTNL_EXPR_REJECT_CODE), code)
            return expression
        case .log(let prefix, let group, let packetBytes, let threshold):
            let expression = Self.make("log", (NFTNL_EXPR_LOG_SNAPLEN, packetBytes))
            nftnl_expr_set_str(expression, UInt16(NFTNL_EXPR_LOG_PREFIX), prefix)
            nftnl_expr_set_u16(expression, UInt16(NFTNL_EXPR_LOG_GROUP), group)
            nftnl_expr_set_u16(expression, UInt16(NFTNL_EXPR_LOG_QTHRESHOLD), threshold)
            return expression
        case .limit(let rate, let burst):
            let expression = Self.make(
                "limit",
                (NFTNL_EXPR_LIMIT_BURST, burst),
                (NFTNL_EXPR_LIMIT_TYPE, NFT_LIMIT_PKTS.rawValue)
            )
            nftnl_expr_set_u64(expression, UInt16(NFTNL_EXPR_LIMIT_RATE), rate)
            nftnl_expr_set_u64(expression, UInt16(NFTNL_EXPR_LIMIT_UNIT), 1)
            return expression
        default:
            return Self.make("counter")
        }
    }

    private static func makeZone(_ register: (Int, UInt32)) -> OpaquePointer {
        let expression = make("ct", (NFTNL_EXPR_CT_KEY, NFT_CT_ZONE.rawValue), register)
        nftnl_expr_set_u8(expression, UInt16(NFTNL_EXPR_CT_DIR), UInt8(IP_CT_DIR_ORIGINAL.rawValue))
        return expression
    }

    private static let register = NFT_REG_1.rawValue

    private static func make(_ name: String, _ attributes: (Int, UInt32)...) -> OpaquePointer {
        guard let expression = nftnl_expr_alloc(name) else { fatalError("libnftnl knows no expression \(name)") }
        for (attribute, value) in attributes { nftnl_expr_set_u32(expression, UInt16(attribute), value) }
        return expression
    }

    private static func set(_ expression: OpaquePointer, _ attribute: Int, _ value: [UInt8]) {
        _ = value.withUnsafeBytes {
            nftnl_expr_set(expression, UInt16(attribute), $0.baseAddress, UInt32($0.count))
        }
    }
}

extension Expression.Verdict {
    /// The number that the kernel has for it: NF_… or enum nft_verdicts.
    var code: Int32 {
        switch self {
        case .accept: NF_ACCEPT
        case .drop: NF_DROP
        case .return: NFT_RETURN.rawValue
        case .goto: NFT_GOTO.rawValue
        }
    }
}
