import CNftnl
import Glibc
public import NetPrimitives

/// Asks the connection tracking of a sandbox's network namespace where redirected datagrams were going: unlike for a
/// TCP connection, no socket option tells. Confined to one thread.
///
/// Each question is one message and its answer, about 5 µs; it is asked once a flow.
public final class Conntrack {
    /// What the kernel knows of a flow that a rule redirected.
    public struct Redirection: Hashable, Sendable {
        /// Where the program sent it.
        public let destination: Endpoint
        /// For how long the kernel keeps the entry when nothing moves, in seconds. Until then the redirect holds.
        public let timeoutSeconds: UInt32
    }

    private let netlink: NetlinkSocket

    /// Asks in the namespace that `socket` was opened in; the socket has no other use then.
    public init(socket: NetlinkSocket) {
        netlink = socket
    }

    /// The socket's descriptor; it stays the socket's own.
    public var descriptor: CInt { netlink.descriptor }

    /// Where the flow over UDP was going that reaches our socket at `listener` from `source`, both as that socket sees
    /// them; `nil` when nothing redirected it there, or the kernel has forgotten the flow.
    public func redirection(from source: Endpoint, to listener: Endpoint) throws(NetlinkError) -> Redirection? {
        let operation = "look up the flow from \(source)"
        let answers: [NetlinkMessage]
        do {
            answers = try netlink.query(Self.question(source, listener), operation: operation)
        } catch  where error.errno == ENOENT {
            return nil
        }
        for answer in answers {
            if let redirection = Self.read(answer) { return redirection }
        }
        return nil
    }
}

// MARK: - Messages

extension Conntrack {
    private static let get = UInt16(NFNL_SUBSYS_CTNETLINK) << 8 | UInt16(IPCTNL_MSG_CT_GET.rawValue)
    private static let new = UInt16(NFNL_SUBSYS_CTNETLINK) << 8 | UInt16(IPCTNL_MSG_CT_NEW.rawValue)

    /// IPCTNL_MSG_CT_GET by the tuple of the reply: what our socket sends back is what undoes the redirect.
    private static func question(_ source: Endpoint, _ listener: Endpoint) -> [UInt8] {
        let isIPv4 = source.address.family == .v4
        let (from, to) = isIPv4 ? (CTA_IP_V4_SRC, CTA_IP_V4_DST) : (CTA_IP_V6_SRC, CTA_IP_V6_DST)
        let addresses =
            attribute(Int(from.rawValue), listener.address.networkBytes)
            + attribute(Int(to.rawValue), source.address.networkBytes)
        let transport =
            attribute(Int(CTA_PROTO_NUM.rawValue), [TransportProtocol.udp.rawValue])
            + attribute(Int(CTA_PROTO_SRC_PORT.rawValue), listener.port.bigEndianBytes)
            + attribute(Int(CTA_PROTO_DST_PORT.rawValue), source.port.bigEndianBytes)
        let tuple = attribute(
            Int(CTA_TUPLE_REPLY.rawValue) | nested,
            attribute(Int(CTA_TUPLE_IP.rawValue) | nested, addresses)
                + attribute(Int(CTA_TUPLE_PROTO.rawValue) | nested, transport)
        )
        let family = nfgenmsg(
            nfgen_family: UInt8(isIPv4 ? AF_INET : AF_INET6),
            version: UInt8(NFNETLINK_V0),
            res_id: 0
        )
        let body = withUnsafeBytes(of: family) { Array($0) } + tuple
        var header = nlmsghdr()
        header.nlmsg_type = get
        header.nlmsg_len = UInt32(MemoryLayout<nlmsghdr>.size + body.count)
        return withUnsafeBytes(of: header) { Array($0) } + body
    }

    /// NLA_F_NESTED.
    private static let nested = 1 << 15

    private static func attribute(_ type: Int, _ value: [UInt8]) -> [UInt8] {
        let header = nlattr(nla_len: UInt16(4 + value.count), nla_type: UInt16(type))
        let padding = [UInt8](repeating: 0, count: (4 - value.count % 4) % 4)
        return withUnsafeBytes(of: header) { Array($0) } + value + padding
    }

    /// IPCTNL_MSG_CT_DELETE that names no entry: of all of them.
    static let forgetAll: [UInt8] = {
        let family = nfgenmsg(nfgen_family: UInt8(AF_UNSPEC), version: UInt8(NFNETLINK_V0), res_id: 0)
        let body = withUnsafeBytes(of: family) { Array($0) }
        var header = nlmsghdr()
        header.nlmsg_type = UInt16(NFNL_SUBSYS_CTNETLINK) << 8 | UInt16(IPCTNL_MSG_CT_DELETE.rawValue)
        header.nlmsg_len = UInt32(MemoryLayout<nlmsghdr>.size + body.count)
        return withUnsafeBytes(of: header) { Array($0) } + body
    }()

    /// `nil` for a message that is no entry, or one of a flow that was not redirected.
    static func read(_ message: NetlinkMessage) -> Redirection? {
        guard message.header.nlmsg_type == new else { return nil }
        var destination: Endpoint?
        var (timeout, status): (UInt32, UInt32) = (0, 0)
        for attribute in NetlinkAttributes(message.payload.dropFirst(MemoryLayout<nfgenmsg>.size)) {
            switch attribute.type {
            case Int(CTA_TUPLE_ORIG.rawValue): destination = self.destination(attribute.payload)
            case Int(CTA_TIMEOUT.rawValue): timeout = attribute.bigEndian32 ?? 0
            case Int(CTA_STATUS.rawValue): status = attribute.bigEndian32 ?? 0
            default: continue
            }
        }
        guard let destination, status & UInt32(IPS_DST_NAT.rawValue) != 0 else { return nil }
        return Redirection(destination: destination, timeoutSeconds: timeout)
    }

    private static func destination(_ tuple: ArraySlice<UInt8>) -> Endpoint? {
        var address: IPAddress?
        var port: UInt16?
        for part in NetlinkAttributes(tuple) {
            for attribute in NetlinkAttributes(part.payload) {
                switch (part.type, attribute.type) {
                case (Int(CTA_TUPLE_IP.rawValue), Int(CTA_IP_V4_DST.rawValue)),
                    (Int(CTA_TUPLE_IP.rawValue), Int(CTA_IP_V6_DST.rawValue)):
                    address = IPAddress(networkBytes: attribute.payload)
                case (Int(CTA_TUPLE_PROTO.rawValue), Int(CTA_PROTO_DST_PORT.rawValue))
                where attribute.payload.count == 2:
                    port = attribute.payload.reduce(0) { $0 << 8 | UInt16($1) }
                default: continue
                }
            }
        }
        guard let address, let port else { return nil }
        return Endpoint(address, port)
    }
}
