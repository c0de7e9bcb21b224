import CNftnl

/// Constants of kernel headers that Swift's importer cannot reach, or that are newer than Debian 12's headers.
enum KernelConstants {
    /// ETH_P_ARP (linux/if_ether.h).
    static let etherTypeARP: UInt16 = 0x0806

    /// NFT_TABLE_F_OWNER | NFT_TABLE_F_PERSIST (linux/netfilter/nf_tables.h): only the socket that made the table may
    /// change it, and it outlives that socket. NFT_TABLE_F_PERSIST came with Linux 6.9.
    static let ownedAndPersistent: UInt32 = UInt32(NFT_TABLE_F_OWNER.rawValue) | 0x4

    /// NFT_MSG_DESTROYSETELEM (linux/netfilter/nf_tables.h): deletes elements and does not mind when they are absent.
    /// Came with Linux 6.3, so wherever NFT_TABLE_F_PERSIST is, this is too.
    static let destroySetElement: UInt16 = 30

    /// NFNL_MSG_BATCH_BEGIN and NFNL_MSG_BATCH_END (linux/netfilter/nfnetlink.h): expressions over NLMSG_MIN_TYPE.
    static let batchBegin = UInt16(NLMSG_MIN_TYPE)
    static let batchEnd = UInt16(NLMSG_MIN_TYPE) + 1

    /// LOOPBACK_IFINDEX (the kernel's include/net/flow.h): `lo` has this index in every network namespace.
    static let loopbackIndex: UInt32 = 1

    /// The numbers by which nft knows a set's key type (nftables' include/datatype.h); the kernel only stores them.
    static let keyTypeIPv4: UInt32 = 7
    static let keyTypeIPv6: UInt32 = 8
    static let keyTypePort: UInt32 = 13
    static let keyTypePriority: UInt32 = 23
}
