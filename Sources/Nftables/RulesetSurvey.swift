import CNftnl
import Crypto
import Glibc

/// What else there is in a network namespace's ruleset beside our own tables, and what a table of ours says that there
/// was when it was made.
///
/// Tables, chains, sets and rules have numbers that are never given twice, so that one which was replaced differs. What
/// is in others' sets is not part of it, nor are counters.
struct RulesetSurvey {
    /// A line for each thing, sorted: `chain ip 3 7 nat OUTPUT 3 -100 1`.
    let others: [String]
    /// ``digest`` as it was when our table was made; `nil` when there is no such table.
    let recorded: String?

    /// SHA-256 of the lines, in hexadecimal.
    var digest: String {
        var hash = SHA256()
        for line in others {
            hash.update(data: Array(line.utf8))
            hash.update(data: [0x0a])
        }
        return hash.finalize().map { byte in
            let digits = String(byte, radix: 16)
            return byte < 16 ? "0" + digits : digits
        }.joined()
    }

    /// Looks at the namespace that `socket` was opened in. `ours` are the tables that are left out, and `record` the one
    /// whose chain has the digest for its rule's comment.
    static func make(
        _ socket: NetlinkSocket,
        ours: [(family: UInt8, name: String)],
        record: Chain
    ) throws(NetlinkError) -> RulesetSurvey {
        var lines: [String] = []
        var recorded: String?
        for kind in Kind.allCases {
            let question = RulesetQuestion.make(kind.question, flags: UInt16(NLM_F_DUMP))
            for message in try socket.dump(question, operation: "list \(kind.rawValue)s") {
                guard let item = Item(message, kind) else { continue }
                if !ours.contains(where: { $0 == (item.family, item.table) }) {
                    lines.append(item.line(kind))
                } else if kind == .rule, item.chain == record.name {
                    recorded = item.comment ?? recorded
                }
            }
        }
        return RulesetSurvey(others: lines.sorted(), recorded: recorded)
    }

    /// A family's name for nft(8).
    static func family(_ number: UInt8) -> String {
        switch Int32(number) {
        case Int32(NFPROTO_INET): "inet"
        case Int32(NFPROTO_IPV4): "ip"
        case Int32(NFPROTO_IPV6): "ip6"
        case Int32(NFPROTO_ARP): "arp"
        case Int32(NFPROTO_BRIDGE): "bridge"
        case Int32(NFPROTO_NETDEV): "netdev"
        default: "\(number)"
        }
    }
}

extension RulesetSurvey {
    /// The comments of a chain's rules, in their order; none where there is no such chain.
    static func comments(
        _ socket: NetlinkSocket,
        family: UInt8,
        table: String,
        chain: Chain
    ) throws(NetlinkError) -> [String] {
        let question = RulesetQuestion.make(Kind.rule.question, flags: UInt16(NLM_F_DUMP))
        return try socket.dump(question, operation: "list rules").compactMap { message in
            guard let item = Item(message, .rule), item.family == family, item.table == table, item.chain == chain.name
            else { return nil }
            return item.comment
        }
    }

    /// What is listed.
    private enum Kind: String, CaseIterable {
        case table, chain, set, rule

        var question: nf_tables_msg_types {
            switch self {
            case .table: NFT_MSG_GETTABLE
            case .chain: NFT_MSG_GETCHAIN
            case .set: NFT_MSG_GETSET
            case .rule: NFT_MSG_GETRULE
            }
        }

        var answer: UInt16 {
            switch self {
            case .table: UInt16(NFT_MSG_NEWTABLE.rawValue)
            case .chain: UInt16(NFT_MSG_NEWCHAIN.rawValue)
            case .set: UInt16(NFT_MSG_NEWSET.rawValue)
            case .rule: UInt16(NFT_MSG_NEWRULE.rawValue)
            }
        }

        /// The attributes that tell one from another: number, name, and what can change while the number stays.
        var telling: [Int] {
            switch self {
            case .table: [NFTA_TABLE_HANDLE, NFTA_TABLE_NAME, NFTA_TABLE_FLAGS].map { Int($0.rawValue) }
            case .chain:
                [NFTA_CHAIN_TABLE, NFTA_CHAIN_HANDLE, NFTA_CHAIN_NAME, NFTA_CHAIN_HOOK, NFTA_CHAIN_POLICY].map {
                    Int($0.rawValue)
                }
            case .set: [NFTA_SET_TABLE, NFTA_SET_HANDLE, NFTA_SET_NAME, NFTA_SET_FLAGS].map { Int($0.rawValue) }
            case .rule: [NFTA_RULE_TABLE, NFTA_RULE_CHAIN, NFTA_RULE_HANDLE].map { Int($0.rawValue) }
            }
        }
    }

    /// One thing of a listing.
    private struct Item {
        let family: UInt8
        private let attributes: [NetlinkAttribute]

        init?(_ message: NetlinkMessage, _ kind: Kind) {
            guard message.header.nlmsg_type == UInt16(NFNL_SUBSYS_NFTABLES) << 8 | kind.answer,
                let family = message.payload.first
            else { return nil }
            self.family = family
            attributes = Array(NetlinkAttributes(message.payload.dropFirst(MemoryLayout<nfgenmsg>.size)))
        }

        private subscript(_ type: Int) -> NetlinkAttribute? { attributes.first { $0.type == type } }

        /// The table that it is, or is in: NFTA_TABLE_NAME, NFTA_CHAIN_TABLE, NFTA_SET_TABLE and NFTA_RULE_TABLE are 1.
        var table: String { self[1]?.text ?? "" }
        /// Of a rule.
        var chain: String? { self[Int(NFTA_RULE_CHAIN.rawValue)]?.text }

        /// Of a rule: its user data as nft(8) writes them, the first of which is the comment.
        var comment: String? {
            guard let data = self[Int(NFTA_RULE_USERDATA.rawValue)]?.payload, data.count > 3,
                data.first == UInt8(NFTNL_UDATA_RULE_COMMENT.rawValue),
                let length = data.dropFirst().first, length > 0, data.count >= Int(length) + 2
            else { return nil }
            return String(decoding: data.dropFirst(2).prefix(Int(length) - 1), as: UTF8.self)
        }

        func line(_ kind: Kind) -> String {
            let values = kind.telling.map { type in
                // In hexadecimal: a name cannot look like two.
                self[type]?.payload.map { String($0, radix: 16) }.joined(separator: ".") ?? "-"
            }
            return "\(kind.rawValue) \(RulesetSurvey.family(family)) \(values.joined(separator: " "))"
        }
    }
}
