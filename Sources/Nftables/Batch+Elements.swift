import CNftnl
import Glibc
import NetPrimitives

// Set elements as messages of a batch: one message an element or interval, so that an error names it.
extension Batch {
    /// Adds an address that expires `milliseconds` from now, with `name` as its comment. One that is there already
    /// keeps its comment, and before Linux 6.12 its expiry too: destroy it first.
    mutating func add(
        _ address: IPAddress,
        to set: LookupSet,
        table: String,
        milliseconds: UInt64,
        name: DomainName
    ) {
        appendElements(.addElement(address, set: set.name), type: UInt16(NFT_MSG_NEWSETELEM.rawValue), set, table) {
            let element = Self.makeElement(address)
            // Both: without the expiration, an element that is there with the same timeout goes on to expire as before.
            nftnl_set_elem_set_u64(element, UInt16(NFTNL_SET_ELEM_TIMEOUT), milliseconds)
            nftnl_set_elem_set_u64(element, UInt16(NFTNL_SET_ELEM_EXPIRATION), milliseconds)
            if let comment = Self.comment(name) {
                _ = comment.withUnsafeBytes {
                    nftnl_set_elem_set(element, UInt16(NFTNL_SET_ELEM_USERDATA), $0.baseAddress, UInt32($0.count))
                }
            }
            return [element]
        }
    }

    /// Deletes an address; it need not be there. `kernelDestroys`: the kernel knows NFT_MSG_DESTROYSETELEM; where it
    /// does not, deleting what is absent would fail the batch, so the element is added before, which does not mind if
    /// it is there.
    mutating func destroy(_ address: IPAddress, in set: LookupSet, table: String, kernelDestroys: Bool) {
        guard !kernelDestroys else {
            return appendElements(
                .deleteElement(address, set: set.name),
                type: KernelConstants.destroySetElement,
                set,
                table
            ) { [Self.makeElement(address)] }
        }
        let add = UInt16(NFT_MSG_NEWSETELEM.rawValue)
        appendElements(.addElement(address, set: set.name), type: add, isExclusive: false, set, table) {
            let element = Self.makeElement(address)
            nftnl_set_elem_set_u64(element, UInt16(NFTNL_SET_ELEM_TIMEOUT), 1_000)
            return [element]
        }
        let delete = UInt16(NFT_MSG_DELSETELEM.rawValue)
        appendElements(.deleteElement(address, set: set.name), type: delete, set, table) { [Self.makeElement(address)] }
    }

    /// Adds an interval. It must not touch any that is there.
    mutating func add(_ interval: ClosedRange<IPAddress>, to set: LookupSet, table: String) {
        appendElements(.addInterval(interval, set: set.name), type: UInt16(NFT_MSG_NEWSETELEM.rawValue), set, table) {
            Self.makeElements(interval)
        }
    }

    /// Deletes an interval, exactly as it was added.
    mutating func delete(_ interval: ClosedRange<IPAddress>, from set: LookupSet, table: String) {
        appendElements(
            .deleteInterval(interval, set: set.name),
            type: UInt16(NFT_MSG_DELSETELEM.rawValue),
            set,
            table
        ) {
            Self.makeElements(interval)
        }
    }

    /// Adds ports. They must not touch any that are there.
    mutating func add(_ ports: PortRange, to set: LookupSet, table: String) {
        appendElements(.addPorts(ports, set: set.name), type: UInt16(NFT_MSG_NEWSETELEM.rawValue), set, table) {
            let start = Self.makeElement(ports.lower.bigEndianBytes)
            guard ports.upper < .max else { return [start] }
            let end = Self.makeElement(
                (ports.upper + 1).bigEndianBytes,
                flags: UInt32(NFT_SET_ELEM_INTERVAL_END.rawValue)
            )
            return [start, end]
        }
    }

    /// Deletes every element of a set and keeps the set.
    mutating func flush(_ set: LookupSet, table: String) {
        appendElements(.flushSet(set.name), type: UInt16(NFT_MSG_DELSETELEM.rawValue), set, table) { [] }
    }

    private mutating func appendElements(
        _ change: Change,
        type: UInt16,
        isExclusive: Bool = true,
        _ set: LookupSet,
        _ table: String,
        make: () -> [OpaquePointer?]
    ) {
        let object = nftnl_set_alloc()
        defer { nftnl_set_free(object) }  // and the elements
        nftnl_set_set_str(object, UInt16(NFTNL_SET_TABLE.rawValue), table)
        nftnl_set_set_str(object, UInt16(NFTNL_SET_NAME.rawValue), set.name)
        for element in make() { nftnl_set_elem_add(object, element) }
        // Without NLM_F_EXCL an element that is there already would be taken for success.
        let isNew = type == UInt16(NFT_MSG_NEWSETELEM.rawValue)
        let flags = isNew ? NLM_F_CREATE | (isExclusive ? NLM_F_EXCL : 0) : 0
        append(change, type: type, flags: flags) {
            nftnl_set_elems_nlmsg_build_payload($0, object)
        }
    }

    private static func makeElement(_ address: IPAddress, flags: UInt32 = 0) -> OpaquePointer? {
        makeElement(address.networkBytes, flags: flags)
    }

    private static func makeElement(_ key: [UInt8], flags: UInt32 = 0) -> OpaquePointer? {
        let element = nftnl_set_elem_alloc()
        _ = key.withUnsafeBytes {
            nftnl_set_elem_set(element, UInt16(NFTNL_SET_ELEM_KEY), $0.baseAddress, UInt32($0.count))
        }
        if flags != 0 { nftnl_set_elem_set_u32(element, UInt16(NFTNL_SET_ELEM_FLAGS), flags) }
        return element
    }

    /// An interval is an element for its first address and one that ends it for the address after its last. One that
    /// reaches the highest address has no end.
    private static func makeElements(_ interval: ClosedRange<IPAddress>) -> [OpaquePointer?] {
        let start = makeElement(interval.lowerBound)
        guard let next = interval.upperBound.next else { return [start] }
        return [start, makeElement(next, flags: UInt32(NFT_SET_ELEM_INTERVAL_END.rawValue))]
    }

    /// The comment as nft(8) writes and reads it: type, length, text, NUL. `nil` for a name of 252 or 253 bytes: of 255
    /// bytes of user data the kernel says EINVAL, and 256 it forgets without a word.
    static func comment(_ name: DomainName) -> [UInt8]? {
        guard name.bytes.count <= 251 else { return nil }
        return [UInt8(NFTNL_UDATA_SET_ELEM_COMMENT.rawValue), UInt8(name.bytes.count + 1)] + name.bytes + [0]
    }
}

extension IPAddress {
    /// The address after this one; `nil` after the highest of the family.
    var next: IPAddress? {
        let (number, overflow) = value.addingReportingOverflow(1)
        return overflow ? nil : IPAddress(family: family, value: number)
    }
}
