import CNftnl
import Glibc

/// One netlink message: its header and what follows it.
struct NetlinkMessage {
    let header: nlmsghdr
    let payload: ArraySlice<UInt8>
}

/// The messages of a datagram. Ends at the first one whose length does not fit.
struct NetlinkMessages: Sequence, IteratorProtocol {
    private let bytes: [UInt8]
    private var offset = 0

    init(_ bytes: [UInt8]) {
        self.bytes = bytes
    }

    /// Whether all of the datagram has been read: what comes before a message that is cut off is not all that there is.
    var isAtEnd: Bool { offset >= bytes.count }

    mutating func next() -> NetlinkMessage? {
        let headerSize = MemoryLayout<nlmsghdr>.size
        guard offset <= bytes.count, bytes.count - offset >= headerSize else { return nil }
        let header = bytes.withUnsafeBytes { $0.loadUnaligned(fromByteOffset: offset, as: nlmsghdr.self) }
        let length = Int(header.nlmsg_len)
        guard length >= headerSize, length <= bytes.count - offset else { return nil }
        let message = NetlinkMessage(header: header, payload: bytes[(offset + headerSize)..<(offset + length)])
        offset += (length + 3) & ~3
        return message
    }
}

/// One attribute of a message: its type without the flag bits, and its payload.
struct NetlinkAttribute {
    let type: Int
    let payload: ArraySlice<UInt8>

    /// The payload as a 32-bit number in network order; `nil` when it is not 4 bytes long.
    var bigEndian32: UInt32? {
        payload.count == 4 ? payload.reduce(0) { $0 << 8 | UInt32($1) } : nil
    }

    /// The payload as a 64-bit number in network order; `nil` when it is not 8 bytes long.
    var bigEndian64: UInt64? {
        payload.count == 8 ? payload.reduce(0) { $0 << 8 | UInt64($1) } : nil
    }

    /// The payload as text up to a NUL.
    var text: String { String(decoding: payload.prefix { $0 != 0 }, as: UTF8.self) }
}

/// The attributes in a stretch of bytes. Ends at the first one whose length does not fit.
struct NetlinkAttributes: Sequence, IteratorProtocol {
    private let bytes: ArraySlice<UInt8>
    private var offset: Int

    init(_ bytes: ArraySlice<UInt8>) {
        self.bytes = bytes
        self.offset = bytes.startIndex
    }

    mutating func next() -> NetlinkAttribute? {
        guard offset <= bytes.endIndex, bytes.endIndex - offset >= 4 else { return nil }
        // nla_len and nla_type, 16 bits each in host order.
        let (length, type) = bytes.withUnsafeBytes { buffer in
            let position = offset - bytes.startIndex
            return (
                Int(buffer.loadUnaligned(fromByteOffset: position, as: UInt16.self)),
                buffer.loadUnaligned(fromByteOffset: position + 2, as: UInt16.self)
            )
        }
        guard length >= 4, length <= bytes.endIndex - offset else { return nil }
        let attribute = NetlinkAttribute(type: Int(type & 0x3fff), payload: bytes[(offset + 4)..<(offset + length)])
        offset += (length + 3) & ~3
        return attribute
    }
}

/// An acknowledgement or an error (NLMSG_ERROR) of the kernel.
struct NetlinkReply {
    /// The sequence number of the message that it answers.
    let sequence: UInt32
    /// The port of the socket that it answers to.
    let port: UInt32
    /// 0 for an acknowledgement.
    let errno: CInt
    /// NLMSGERR_ATTR_MSG, or empty.
    let detail: String

    /// `nil` when `message` is not an answer, or a malformed one.
    init?(_ message: NetlinkMessage) {
        let requestHeader = MemoryLayout<CInt>.size + MemoryLayout<nlmsghdr>.size
        guard message.header.nlmsg_type == NLMSG_ERROR, message.payload.count >= requestHeader else { return nil }
        let negative = message.payload.withUnsafeBytes { $0.loadUnaligned(as: CInt.self) }
        sequence = message.header.nlmsg_seq
        port = message.header.nlmsg_pid
        errno = negative == .min ? .max : -negative
        // NETLINK_CAP_ACK: the request's header alone is echoed, so that attributes follow it at once.
        var detail = ""
        if message.header.nlmsg_flags & UInt16(NLM_F_ACK_TLVS) != 0 {
            for attribute in NetlinkAttributes(message.payload.dropFirst(requestHeader))
            where attribute.type == Int(NLMSGERR_ATTR_MSG.rawValue) {
                detail = attribute.text
            }
        }
        self.detail = detail
    }
}
