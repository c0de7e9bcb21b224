import CNftnl
import Glibc

/// Messages that the kernel carries out together or not at all (an nfnetlink batch). Each message is remembered with
/// what it does, so that an error can name it.
struct Batch {
    /// What its messages are about: NFPROTO_INET or NFPROTO_NETDEV.
    let family: UInt8

    init(family: Int32 = Int32(NFPROTO_INET)) {
        self.family = UInt8(family)
    }

    /// What each message does, in order.
    private(set) var changes: [Change] = []
    /// Whether it only takes away, perhaps what is not there.
    private(set) var mayChangeNothing = true
    /// The messages one after the other, numbered from 1; 0 is the batch's begin.
    private(set) var bytes: [UInt8] = []

    /// No message of ours is longer: a rule has a dozen expressions, an element at most 256 bytes of user data.
    /// libnftnl writes without asking for the room there is.
    private static let scratchSize = 16 * 1024

    /// Kinds of messages that do not mind when what they take away is not there: the first two as a flush.
    private static let takesAway = [
        UInt16(NFT_MSG_DELRULE.rawValue), UInt16(NFT_MSG_DELSETELEM.rawValue), KernelConstants.destroySetElement,
    ]

    /// Whether there is nothing to do.
    var isEmpty: Bool { changes.isEmpty }

    /// Appends a message of `type` (NFT_MSG_…); `build` writes its attributes.
    mutating func append(
        _ change: Change,
        type: UInt16,
        flags: Int32 = 0,
        build: (UnsafeMutablePointer<nlmsghdr>) -> Void
    ) {
        let sequence = UInt32(changes.count + 1)
        withUnsafeTemporaryAllocation(byteCount: Self.scratchSize, alignment: 8) { buffer in
            let header = nftnl_nlmsg_build_hdr(
                buffer.baseAddress!.assumingMemoryBound(to: CChar.self),
                type,
                UInt16(family),
                UInt16(NLM_F_REQUEST | flags),
                sequence
            )!
            build(header)
            let count = Int(header.pointee.nlmsg_len)
            precondition(count <= Self.scratchSize, "a netlink message outgrew its buffer")
            bytes.append(contentsOf: buffer[..<count])
        }
        changes.append(change)
        mayChangeNothing = mayChangeNothing && Self.takesAway.contains(type)
    }

    /// The datagram to send: begin, messages, end; the messages' sequence numbers count from `sequence`, which is the
    /// begin's. Only the last message asks for an acknowledgement: errors are reported unasked.
    func datagram(sequence: UInt32) -> [UInt8] {
        var result = envelope(KernelConstants.batchBegin, sequence: 0)
        result += bytes
        result += envelope(KernelConstants.batchEnd, sequence: UInt32(changes.count + 1))
        result.withUnsafeMutableBytes { buffer in
            var offset = 0
            while offset < buffer.count {
                var header = buffer.loadUnaligned(fromByteOffset: offset, as: nlmsghdr.self)
                if header.nlmsg_seq == UInt32(changes.count) { header.nlmsg_flags |= UInt16(NLM_F_ACK) }
                header.nlmsg_seq &+= sequence
                buffer.storeBytes(of: header, toByteOffset: offset, as: nlmsghdr.self)
                offset += Int(header.nlmsg_len)
            }
        }
        return result
    }

    private func envelope(_ type: UInt16, sequence: UInt32) -> [UInt8] {
        let message = nfgenmsg(
            nfgen_family: UInt8(AF_UNSPEC),
            version: UInt8(NFNETLINK_V0),
            res_id: UInt16(NFNL_SUBSYS_NFTABLES).bigEndian
        )
        var header = nlmsghdr()
        header.nlmsg_len = UInt32(MemoryLayout<nlmsghdr>.size + MemoryLayout<nfgenmsg>.size)
        header.nlmsg_type = type
        header.nlmsg_flags = UInt16(NLM_F_REQUEST)
        header.nlmsg_seq = sequence
        return withUnsafeBytes(of: header) { Array($0) } + withUnsafeBytes(of: message) { Array($0) }
    }
}

extension Batch {
    /// The batch as a whole, in words that follow "cannot", for an error that is not one message's.
    var summary: String {
        changes.count == 1 ? changes[0].description : "carry out \(changes.count) changes of nftables"
    }
}
