import CNftnl
import Glibc

/// A rule of somebody else's nftables, as a list of its expressions' names and attributes.
struct ForeignRule {
    let family: UInt8
    let table: String
    let chain: String
    let handle: UInt64
    let expressions: [(name: String, data: ArraySlice<UInt8>)]

    init?(_ message: NetlinkMessage) {
        guard message.header.nlmsg_type == UInt16(NFNL_SUBSYS_NFTABLES) << 8 | UInt16(NFT_MSG_NEWRULE.rawValue),
            let family = message.payload.first
        else { return nil }
        self.family = family
        var (table, chain, handle): (String, String, UInt64) = ("?", "?", 0)
        var expressions: [(name: String, data: ArraySlice<UInt8>)] = []
        for attribute in NetlinkAttributes(message.payload.dropFirst(MemoryLayout<nfgenmsg>.size)) {
            switch attribute.type {
            case Int(NFTA_RULE_TABLE.rawValue): table = attribute.text
            case Int(NFTA_RULE_CHAIN.rawValue): chain = attribute.text
            case Int(NFTA_RULE_HANDLE.rawValue): handle = attribute.bigEndian64 ?? 0
            case Int(NFTA_RULE_EXPRESSIONS.rawValue):
                expressions = NetlinkAttributes(attribute.payload).map { element in
                    let parts = Array(NetlinkAttributes(element.payload))
                    let name = parts.first { $0.type == Int(NFTA_EXPR_NAME.rawValue) }?.text ?? "?"
                    return (name, parts.first { $0.type == Int(NFTA_EXPR_DATA.rawValue) }?.payload ?? [])
                }
            default: continue
            }
        }
        (self.table, self.chain, self.handle, self.expressions) = (table, chain, handle, expressions)
    }
}
