import CNftnl
import Glibc

extension SideWays {
    /// Expressions that look at a packet or let it go on, drop it or count it.
    private static let looking: Set = [
        "bitwise", "byteorder", "cmp", "connlimit", "counter", "fib", "hash", "immediate", "inner", "last", "limit",
        "log",
        "lookup", "match", "numgen", "osf", "quota", "range", "reject", "rt", "socket", "tunnel", "xfrm",
    ]
    /// Those that do it unless they have this attribute: a register from which something is set.
    private static let setting: [String: Int] = [
        "meta": Int(NFTA_META_SREG.rawValue), "payload": Int(NFTA_PAYLOAD_SREG.rawValue),
        "ct": Int(NFTA_CT_SREG.rawValue),
    ]
    /// Translations of addresses. What a program sends is judged by where it leads then; what our own sockets send would
    /// not leave.
    private static let translating: Set = ["nat", "redir", "masq"]
    /// Targets of iptables that do nothing to a packet but let it go on or not.
    static let harmlessTargets: Set = ["", "ERROR", "ACCEPT", "DROP", "RETURN", "REJECT", "LOG", "NFLOG", "AUDIT"]
    /// Those that translate addresses; the first two change where a packet comes from only.
    static let translatingTargets: Set = ["SNAT", "MASQUERADE", "DNAT", "REDIRECT", "NETMAP"]
    static let sourceTargets: Set = ["SNAT", "MASQUERADE"]

    /// What others' nftables in the calling thread's namespace do to packets.
    func rules() throws(NetlinkError) -> [SidePath] {
        let socket = try NetlinkSocket()
        var found: [SidePath] = []
        for message in try socket.dump(
            RulesetQuestion.make(NFT_MSG_GETRULE, flags: UInt16(NLM_F_DUMP)),
            operation: "list rules",
            atMost: Self.most
        ) {
            guard let rule = ForeignRule(message), !Self.isReplaced(rule), let statement = changing(rule),
                !isOfFence(rule, statement)
            else { continue }
            let family = RulesetSurvey.family(rule.family)
            found.append(
                SidePath(
                    what: "a rule of chain \(rule.chain) in table \(family) \(rule.table) with \(statement)",
                    remedy: Self.remedy(
                        "nft delete rule \(family) \(rule.table) \(rule.chain) handle \(rule.handle)",
                        [rule.table, rule.chain]
                    )
                )
            )
        }
        return try found + Self.flowTables(socket) + Self.ownTable(socket)
    }

    /// The command, where all of the names in it are plain. nft(8) has no way to write others down.
    private static func remedy(_ command: String, _ names: [String]) -> String {
        names.allSatisfy(SidePath.isPlain) ? command : "nft flush ruleset"
    }

    /// Rules of a table of ours that somebody left are replaced when it is taken over, in the chains that it should have.
    private static func isReplaced(_ rule: ForeignRule) -> Bool {
        rule.family == UInt8(NFPROTO_INET) && rule.table == SandboxRuleset.table
            && SandboxRuleset.everyChain.contains { $0.name == rule.chain }
    }

    private func isOfFence(_ rule: ForeignRule, _ statement: String) -> Bool {
        hasFence && rule.family == UInt8(NFPROTO_NETDEV) && rule.table == SandboxRuleset.table
            && statement == "meta set"
    }

    /// A table called as ours that has other chains, or the same at other places, so that taking it over would not make it
    /// what it should be.
    private static func ownTable(_ socket: NetlinkSocket) throws(NetlinkError) -> [SidePath] {
        let question = RulesetQuestion.make(
            NFT_MSG_GETCHAIN,
            family: UInt16(NFPROTO_INET),
            flags: UInt16(NLM_F_DUMP)
        )
        let answer = UInt16(NFNL_SUBSYS_NFTABLES) << 8 | UInt16(NFT_MSG_NEWCHAIN.rawValue)
        for message in try socket.dump(question, operation: "list chains", atMost: most) {
            guard message.header.nlmsg_type == answer, message.payload.first == UInt8(NFPROTO_INET) else { continue }
            let attributes = Array(NetlinkAttributes(message.payload.dropFirst(MemoryLayout<nfgenmsg>.size)))
            func text(_ type: UInt32) -> String? { attributes.first { $0.type == Int(type) }?.text }
            guard text(NFTA_CHAIN_TABLE.rawValue) == SandboxRuleset.table else { continue }
            let name = text(NFTA_CHAIN_NAME.rawValue)
            guard let chain = SandboxRuleset.everyChain.first(where: { $0.name == name }), isAt(chain, attributes)
            else {
                let table = "table inet \(SandboxRuleset.table)"
                return [SidePath(what: "\(table), whose chains somebody changed,", remedy: "nft delete \(table)")]
            }
        }
        return []
    }

    /// Whether a chain that is there is attached as it should be.
    private static func isAt(_ chain: Chain, _ attributes: [NetlinkAttribute]) -> Bool {
        let hook = attributes.first { $0.type == Int(NFTA_CHAIN_HOOK.rawValue) }
        guard let attachment = chain.attachment else { return hook == nil }
        guard let hook else { return false }
        let places = Array(NetlinkAttributes(hook.payload))
        func number(_ among: [NetlinkAttribute], _ type: UInt32) -> UInt32? {
            among.first { $0.type == Int(type) }?.bigEndian32
        }
        let type = attributes.first { $0.type == Int(NFTA_CHAIN_TYPE.rawValue) }?.text
        return number(places, NFTA_HOOK_HOOKNUM.rawValue) == attachment.hook.number
            && number(places, NFTA_HOOK_PRIORITY.rawValue) == UInt32(bitPattern: attachment.priority)
            && type == attachment.kind.rawValue
            && number(attributes, NFTA_CHAIN_POLICY.rawValue) == (attachment.policy == .accept ? 1 : 0)
    }

    /// The statement by which a rule does more than look; `nil` when none does.
    private func changing(_ rule: ForeignRule) -> String? {
        for (index, expression) in rule.expressions.enumerated() {
            let (name, attributes) = (expression.name, Array(NetlinkAttributes(expression.data)))
            if let register = Self.setting[name] {
                if attributes.contains(where: { $0.type == register }) { return "\(name) set" }
            } else if name == "exthdr" {
                // Without a register to load to, it sets or removes an option.
                guard attributes.contains(where: { $0.type == Int(NFTA_EXTHDR_DREG.rawValue) }) else { return name }
            } else if name == "objref" {
                guard Self.isMeasure(attributes) else { return name }
            } else if name == "dynset" {
                // Remembers what the mark of our own sockets' packets is, for instance.
                if hasUpstreamInside { return name }
            } else if Self.translating.contains(name) {
                if hasUpstreamInside, name != "masq", !Self.isSource(name, attributes),
                    !Self.isForDocker(rule.expressions.prefix(index))
                {
                    return name
                }
            } else if name == "target" {
                let target = attributes.first { $0.type == 1 }?.text ?? "?"
                let isForDocker = Self.isForDocker(rule.expressions.prefix(index))
                guard isAllowed(target: target, isForDocker: isForDocker) else { return "target \(target)" }
            } else if !Self.looking.contains(name) {
                return name
            }
        }
        return nil
    }

    /// Of iptables, old or new.
    func isAllowed(target: String, isForDocker: Bool) -> Bool {
        if Self.harmlessTargets.contains(target) { return true }
        guard Self.translatingTargets.contains(target) else { return false }
        return !hasUpstreamInside || Self.sourceTargets.contains(target) || isForDocker
    }

    /// NFT_OBJECT_COUNTER, _QUOTA, _LIMIT and _CONNLIMIT, named in the rule itself.
    private static func isMeasure(_ attributes: [NetlinkAttribute]) -> Bool {
        let type = attributes.first { $0.type == Int(NFTA_OBJREF_IMM_TYPE.rawValue) }?.bigEndian32
        return type.map { [1, 2, 4, 5].contains($0) } ?? false
    }

    /// `snat to …`: NFT_NAT_SNAT.
    private static func isSource(_ name: String, _ attributes: [NetlinkAttribute]) -> Bool {
        name == "nat" && attributes.first { $0.type == Int(NFTA_NAT_TYPE.rawValue) }?.bigEndian32 == 0
    }

    /// Whether what comes before in a rule lets nothing by but packets from or to Docker's resolver, `ip daddr 127.0.0.11`:
    /// Docker's own rules in user-defined networks.
    private static func isForDocker(_ expressions: ArraySlice<(name: String, data: ArraySlice<UInt8>)>) -> Bool {
        zip(expressions, expressions.dropFirst()).contains { load, comparison in
            guard load.name == "payload", comparison.name == "cmp" else { return false }
            let (loaded, compared) = (Array(NetlinkAttributes(load.data)), Array(NetlinkAttributes(comparison.data)))
            func number(_ attributes: [NetlinkAttribute], _ type: UInt32) -> UInt32? {
                attributes.first { $0.type == Int(type) }?.bigEndian32
            }
            // Bytes 12 to 15 or 16 to 19 of the network header, equal to 127.0.0.11, in the same register.
            guard number(loaded, NFTA_PAYLOAD_BASE.rawValue) == NFT_PAYLOAD_NETWORK_HEADER.rawValue,
                [12, 16].contains(number(loaded, NFTA_PAYLOAD_OFFSET.rawValue)),
                number(loaded, NFTA_PAYLOAD_LEN.rawValue) == 4,
                number(compared, NFTA_CMP_OP.rawValue) == NFT_CMP_EQ.rawValue,
                number(loaded, NFTA_PAYLOAD_DREG.rawValue) == number(compared, NFTA_CMP_SREG.rawValue)
            else { return false }
            let data = compared.first { $0.type == Int(NFTA_CMP_DATA.rawValue) }
            return data.map { Array(NetlinkAttributes($0.payload)).first.map { Array($0.payload) } == [127, 0, 0, 11] }
                ?? false
        }
    }

    /// Flows that are handed from device to device before the rules (NFT_MSG_GETFLOWTABLE).
    private static func flowTables(_ socket: NetlinkSocket) throws(NetlinkError) -> [SidePath] {
        let question = RulesetQuestion.make(NFT_MSG_GETFLOWTABLE, flags: UInt16(NLM_F_DUMP))
        let answer = UInt16(NFNL_SUBSYS_NFTABLES) << 8 | UInt16(NFT_MSG_NEWFLOWTABLE.rawValue)
        return try socket.dump(question, operation: "list flow tables", atMost: most).compactMap { message in
            guard message.header.nlmsg_type == answer, let family = message.payload.first else { return nil }
            let attributes = Array(NetlinkAttributes(message.payload.dropFirst(MemoryLayout<nfgenmsg>.size)))
            let table = attributes.first { $0.type == Int(NFTA_FLOWTABLE_TABLE.rawValue) }?.text ?? "?"
            let name = attributes.first { $0.type == Int(NFTA_FLOWTABLE_NAME.rawValue) }?.text ?? "?"
            let place = "\(RulesetSurvey.family(family)) \(table)"
            return SidePath(
                what: "flow table \(name) in table \(place)",
                remedy: remedy("nft delete flowtable \(place) \(name)", [table, name])
            )
        }
    }
}
