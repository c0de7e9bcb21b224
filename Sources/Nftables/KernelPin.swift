import CNftnl
import Glibc
public import NetPrimitives

/// A pinned address as the kernel holds it: what is left of a pin when the process that made it has gone.
public struct KernelPin: Hashable, Sendable {
    /// The address.
    public let address: IPAddress
    /// When the kernel drops it, in whole seconds from now, rounded down.
    public let secondsLeft: UInt32
    /// The name it was last pinned for; `nil` when the kernel had no room for it.
    public let name: DomainName?

    /// A pin from its parts.
    public init(address: IPAddress, secondsLeft: UInt32, name: DomainName?) {
        self.address = address
        self.secondsLeft = secondsLeft
        self.name = name
    }
}

// MARK: - Messages

extension KernelPin {
    /// NFT_MSG_GETSETELEM for all elements of `set`.
    static func question(_ set: LookupSet, table: String) -> [UInt8] {
        let object = nftnl_set_alloc()
        defer { nftnl_set_free(object) }
        nftnl_set_set_str(object, UInt16(NFTNL_SET_TABLE.rawValue), table)
        nftnl_set_set_str(object, UInt16(NFTNL_SET_NAME.rawValue), set.name)
        return RulesetQuestion.make(NFT_MSG_GETSETELEM, family: UInt16(NFPROTO_INET), flags: UInt16(NLM_F_DUMP)) {
            nftnl_set_elems_nlmsg_build_payload($0, object)
        }
    }

    /// The pins in one message of the answer.
    static func read(_ message: NetlinkMessage, _ family: IPAddress.Family) -> [KernelPin] {
        let type = UInt16(NFNL_SUBSYS_NFTABLES) << 8 | UInt16(NFT_MSG_NEWSETELEM.rawValue)
        guard message.header.nlmsg_type == type else { return [] }
        return NetlinkAttributes(message.payload.dropFirst(MemoryLayout<nfgenmsg>.size))
            .filter { $0.type == Int(NFTA_SET_ELEM_LIST_ELEMENTS.rawValue) }
            .flatMap { list in NetlinkAttributes(list.payload).compactMap { KernelPin(element: $0.payload, family) } }
    }

    private init?(element: ArraySlice<UInt8>, _ family: IPAddress.Family) {
        var address: IPAddress?
        var milliseconds: UInt64?
        var name: DomainName?
        for attribute in NetlinkAttributes(element) {
            switch attribute.type {
            case Int(NFTA_SET_ELEM_KEY.rawValue):
                let value = NetlinkAttributes(attribute.payload).first { $0.type == Int(NFTA_DATA_VALUE.rawValue) }
                address = value.flatMap { IPAddress(networkBytes: $0.payload) }
            case Int(NFTA_SET_ELEM_EXPIRATION.rawValue):
                milliseconds = attribute.bigEndian64
            case Int(NFTA_SET_ELEM_USERDATA.rawValue):
                name = Self.name(inComment: attribute.payload)
            default: continue
            }
        }
        guard let address, address.family == family else { return nil }
        self.init(address: address, secondsLeft: UInt32(clamping: (milliseconds ?? 0) / 1_000), name: name)
    }

    /// The name in an element's user data; see ``Batch/comment(_:)``.
    private static func name(inComment bytes: ArraySlice<UInt8>) -> DomainName? {
        let header = bytes.prefix(2)
        guard header.first == UInt8(NFTNL_UDATA_SET_ELEM_COMMENT.rawValue), let length = header.last,
            length > 1, bytes.count == Int(length) + 2, bytes.last == 0
        else { return nil }
        return try? DomainName(ascii: bytes.dropFirst(2).dropLast())
    }
}
