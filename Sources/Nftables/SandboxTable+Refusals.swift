import CNftnl
import Glibc

extension SandboxTable {
    /// How many packets the rules have refused since the table was made or taken over: more than ``RefusalLog`` tells of,
    /// which has a limit.
    public func refusedCount() throws(NetlinkError) -> UInt64 {
        let chain = SandboxRuleset.refused.name
        let question = Self.question(table: SandboxRuleset.table, chain: chain)
        for message in try netlink.dump(question, operation: "list chain \(chain)") {
            if let count = Self.packets(countedBy: message) { return count }
        }
        return 0
    }

    /// NFT_MSG_GETRULE for all rules of a chain.
    private static func question(table: String, chain: String) -> [UInt8] {
        let object = nftnl_rule_alloc()
        defer { nftnl_rule_free(object) }
        nftnl_rule_set_str(object, UInt16(NFTNL_RULE_TABLE.rawValue), table)
        nftnl_rule_set_str(object, UInt16(NFTNL_RULE_CHAIN.rawValue), chain)
        return RulesetQuestion.make(NFT_MSG_GETRULE, family: UInt16(NFPROTO_INET), flags: UInt16(NLM_F_DUMP)) {
            nftnl_rule_nlmsg_build_payload($0, object)
        }
    }

    /// What the counter in a rule says; `nil` for a rule without one.
    private static func packets(countedBy message: NetlinkMessage) -> UInt64? {
        let type = UInt16(NFNL_SUBSYS_NFTABLES) << 8 | UInt16(NFT_MSG_NEWRULE.rawValue)
        guard message.header.nlmsg_type == type else { return nil }
        for rule in NetlinkAttributes(message.payload.dropFirst(MemoryLayout<nfgenmsg>.size))
        where rule.type == Int(NFTA_RULE_EXPRESSIONS.rawValue) {
            for expression in NetlinkAttributes(rule.payload) {
                let members = NetlinkAttributes(expression.payload)
                guard members.first(where: { $0.type == Int(NFTA_EXPR_NAME.rawValue) })?.text == "counter",
                    let data = members.first(where: { $0.type == Int(NFTA_EXPR_DATA.rawValue) })
                else { continue }
                let packets = NetlinkAttributes(data.payload).first { $0.type == Int(NFTA_COUNTER_PACKETS.rawValue) }
                return packets?.bigEndian64
            }
        }
        return nil
    }
}
