import CNftnl
import Glibc
import NetPrimitives

// Tables, sets, chains and rules as messages of a batch.
extension Batch {
    /// Creates a table, with `isOwned` one with an owner that outlives its socket; an error when it exists.
    mutating func createTable(_ name: String, isOwned: Bool) {
        append(.createTable(name), flags: NLM_F_CREATE | NLM_F_EXCL, table: name, isOwned: isOwned)
    }

    /// Becomes the owner of a table that has none any more; an error when there is no such table or somebody owns it.
    mutating func adoptTable(_ name: String, isOwned: Bool) {
        append(.adoptTable(name), flags: 0, table: name, isOwned: isOwned)
    }

    private mutating func append(_ change: Change, flags: Int32, table name: String, isOwned: Bool) {
        let table = nftnl_table_alloc()
        defer { nftnl_table_free(table) }
        nftnl_table_set_str(table, UInt16(NFTNL_TABLE_NAME.rawValue), name)
        nftnl_table_set_u32(table, UInt16(NFTNL_TABLE_FLAGS.rawValue), isOwned ? KernelConstants.ownedAndPersistent : 0)
        append(change, type: UInt16(NFT_MSG_NEWTABLE.rawValue), flags: flags) {
            nftnl_table_nlmsg_build_payload($0, table)
        }
    }

    /// Deletes a table and everything in it.
    mutating func deleteTable(_ name: String) {
        let table = nftnl_table_alloc()
        defer { nftnl_table_free(table) }
        nftnl_table_set_str(table, UInt16(NFTNL_TABLE_NAME.rawValue), name)
        append(.deleteTable(name), type: UInt16(NFT_MSG_DELTABLE.rawValue)) {
            nftnl_table_nlmsg_build_payload($0, table)
        }
    }

    /// Creates a set; an error when it exists, unless it `mayExist` and is the same.
    mutating func create(_ set: LookupSet, table: String, mayExist: Bool = false) {
        let object = nftnl_set_alloc()
        defer { nftnl_set_free(object) }
        nftnl_set_set_str(object, UInt16(NFTNL_SET_TABLE.rawValue), table)
        nftnl_set_set_str(object, UInt16(NFTNL_SET_NAME.rawValue), set.name)
        let flags = (set.isInterval ? NFT_SET_INTERVAL : NFT_SET_TIMEOUT).rawValue
        let added = set.isDynamic ? NFT_SET_EVAL.rawValue : 0
        nftnl_set_set_u32(object, UInt16(NFTNL_SET_FLAGS.rawValue), UInt32(flags | added))
        let keyType =
            switch set.key {
            case .address(.v4): KernelConstants.keyTypeIPv4
            case .address(.v6): KernelConstants.keyTypeIPv6
            case .port: KernelConstants.keyTypePort
            case .priority: KernelConstants.keyTypePriority
            }
        nftnl_set_set_u32(object, UInt16(NFTNL_SET_KEY_TYPE.rawValue), keyType)
        nftnl_set_set_u32(object, UInt16(NFTNL_SET_KEY_LEN.rawValue), UInt32(set.key.length))
        // Different within the batch; the kernel does not keep it.
        nftnl_set_set_u32(object, UInt16(NFTNL_SET_ID.rawValue), UInt32(changes.count + 1))
        let creation = mayExist ? NLM_F_CREATE : NLM_F_CREATE | NLM_F_EXCL
        append(.createSet(set.name), type: UInt16(NFT_MSG_NEWSET.rawValue), flags: creation) {
            nftnl_set_nlmsg_build_payload($0, object)
        }
    }

    /// Creates a chain; an error when it exists, unless it `mayExist` and is the same.
    mutating func create(_ chain: Chain, table: String, mayExist: Bool = false) {
        let object = nftnl_chain_alloc()
        defer { nftnl_chain_free(object) }
        nftnl_chain_set_str(object, UInt16(NFTNL_CHAIN_TABLE.rawValue), table)
        nftnl_chain_set_str(object, UInt16(NFTNL_CHAIN_NAME.rawValue), chain.name)
        if let attachment = chain.attachment {
            nftnl_chain_set_str(object, UInt16(NFTNL_CHAIN_TYPE.rawValue), attachment.kind.rawValue)
            nftnl_chain_set_u32(object, UInt16(NFTNL_CHAIN_HOOKNUM.rawValue), attachment.hook.number)
            if let device = attachment.device {
                nftnl_chain_set_str(object, UInt16(NFTNL_CHAIN_DEV.rawValue), device)
            }
            nftnl_chain_set_s32(object, UInt16(NFTNL_CHAIN_PRIO.rawValue), attachment.priority)
            let policy = UInt32(bitPattern: attachment.policy.code)
            nftnl_chain_set_u32(object, UInt16(NFTNL_CHAIN_POLICY.rawValue), policy)
        }
        let flags = mayExist ? NLM_F_CREATE : NLM_F_CREATE | NLM_F_EXCL
        append(.createChain(chain.name), type: UInt16(NFT_MSG_NEWCHAIN.rawValue), flags: flags) {
            nftnl_chain_nlmsg_build_payload($0, object)
        }
    }

    /// Removes every rule of a chain and keeps the chain.
    mutating func flush(_ chain: Chain, table: String) {
        let object = makeRule(table: table, chain: chain)
        defer { nftnl_rule_free(object) }
        append(.flushChain(chain.name), type: UInt16(NFT_MSG_DELRULE.rawValue)) {
            nftnl_rule_nlmsg_build_payload($0, object)
        }
    }

    /// Adds a rule at the end of a chain.
    mutating func add(_ rule: Rule, to chain: Chain, table: String) {
        let object = makeRule(table: table, chain: chain)
        defer { nftnl_rule_free(object) }
        for expression in rule.expressions { nftnl_rule_add_expr(object, expression.make()) }
        add(object, saying: rule.line, to: chain)
    }

    /// Adds a rule that does nothing and says something, in at most 200 bytes.
    mutating func add(comment: String, to chain: Chain, table: String) {
        let object = makeRule(table: table, chain: chain)
        defer { nftnl_rule_free(object) }
        let data = nftnl_udata_buf_alloc(UInt32(NFT_USERDATA_MAXLEN))
        defer { nftnl_udata_buf_free(data) }
        nftnl_udata_put_strz(data, UInt8(NFTNL_UDATA_RULE_COMMENT.rawValue), comment)
        nftnl_rule_set_data(
            object,
            UInt16(NFTNL_RULE_USERDATA.rawValue),
            nftnl_udata_buf_data(data),
            nftnl_udata_buf_len(data)
        )
        nftnl_rule_add_expr(object, Expression.counter.make())
        add(object, saying: "counter comment \"\(comment)\"", to: chain)
    }

    private mutating func add(_ object: OpaquePointer?, saying line: String, to chain: Chain) {
        append(
            .addRule(line, chain: chain.name),
            type: UInt16(NFT_MSG_NEWRULE.rawValue),
            flags: NLM_F_CREATE | NLM_F_APPEND
        ) {
            nftnl_rule_nlmsg_build_payload($0, object)
        }
    }

    private func makeRule(table: String, chain: Chain) -> OpaquePointer? {
        let object = nftnl_rule_alloc()
        nftnl_rule_set_u32(object, UInt16(NFTNL_RULE_FAMILY.rawValue), UInt32(family))
        nftnl_rule_set_str(object, UInt16(NFTNL_RULE_TABLE.rawValue), table)
        nftnl_rule_set_str(object, UInt16(NFTNL_RULE_CHAIN.rawValue), chain.name)
        return object
    }
}
