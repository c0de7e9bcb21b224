import CLinux
import CNftnl
import Glibc
import NetPrimitives

extension SideWays {
    /// RTNL_FAMILY of MPLS routes.
    private static let mpls: UInt8 = 28

    /// What the calling thread's namespace does with packets when it looks up their route.
    func routes() throws(NetlinkError) -> [SidePath] {
        let socket = try NetlinkSocket(bus: NETLINK_ROUTE)
        return try Self.encapsulations(socket) + Self.nextHops(socket) + Self.transformations()
    }

    private static func encapsulations(_ socket: NetlinkSocket) throws(NetlinkError) -> [SidePath] {
        let question = RouteQuestion.make(RTM_GETROUTE, rtmsg())
        let headerSize = MemoryLayout<rtmsg>.size
        var found: [SidePath] = []
        for message in try socket.dump(question, operation: "list routes", atMost: most) {
            guard message.header.nlmsg_type == UInt16(RTM_NEWROUTE), message.payload.count >= headerSize else {
                continue
            }
            let route = message.payload.withUnsafeBytes { $0.loadUnaligned(as: rtmsg.self) }
            let attributes = NetlinkAttributes(message.payload.dropFirst(headerSize))
            guard route.rtm_family != mpls else {
                found.append(SidePath(what: "MPLS routes", remedy: "ip -f mpls route flush"))
                continue
            }
            guard let kind = encapsulation(attributes) else { continue }
            let (target, table) = place(route, attributes)
            let version = route.rtm_family == UInt8(AF_INET6) ? "-6 " : ""
            let type = types[route.rtm_type].map { $0 + " " } ?? ""
            found.append(
                SidePath(
                    what: "a route to \(target) with encapsulation \(kind)",
                    remedy: "ip \(version)route del \(type)\(target) table \(table)"
                )
            )
        }
        return found
    }

    /// Of routes that are not ordinary ones, RTN_…, as ip-route(8) names them.
    private static let types: [UInt8: String] = [
        UInt8(RTN_LOCAL): "local", UInt8(RTN_BROADCAST): "broadcast", UInt8(RTN_ANYCAST): "anycast",
        UInt8(RTN_MULTICAST): "multicast", UInt8(RTN_BLACKHOLE): "blackhole", UInt8(RTN_UNREACHABLE): "unreachable",
        UInt8(RTN_PROHIBIT): "prohibit", UInt8(RTN_THROW): "throw",
    ]

    /// Which encapsulation a route has, or one of its next hops.
    private static func encapsulation(_ attributes: NetlinkAttributes) -> String? {
        for attribute in attributes {
            switch attribute.type {
            case Int(RTA_ENCAP_TYPE.rawValue): return name(ofEncapsulation: attribute.host16 ?? 0)
            case Int(RTA_MULTIPATH.rawValue):
                var rest = attribute.payload
                // Each is a struct rtnexthop with its attributes behind it.
                while rest.count >= MemoryLayout<rtnexthop>.size {
                    let hop = rest.withUnsafeBytes { $0.loadUnaligned(as: rtnexthop.self) }
                    let length = Int(hop.rtnh_len)
                    guard length >= MemoryLayout<rtnexthop>.size, length <= rest.count else { return "unknown" }
                    let own = rest.prefix(length).dropFirst(MemoryLayout<rtnexthop>.size)
                    if let kind = encapsulation(NetlinkAttributes(own)) { return kind }
                    rest = rest.dropFirst((length + 3) & ~3)
                }
            default: continue
            }
        }
        return nil
    }

    /// enum lwtunnel_encap_types (linux/lwtunnel.h); 0 is none.
    private static func name(ofEncapsulation number: UInt16) -> String? {
        let names = ["mpls", "ip", "ila", "ip6", "seg6", "bpf", "seg6local", "rpl", "ioam6", "xfrm"]
        guard number > 0 else { return nil }
        return Int(number) <= names.count ? names[Int(number) - 1] : "\(number)"
    }

    private static func place(_ route: rtmsg, _ attributes: NetlinkAttributes) -> (target: String, table: UInt32) {
        var (target, table) = ("default", UInt32(route.rtm_table))
        for attribute in attributes {
            switch attribute.type {
            case Int(RTA_DST.rawValue):
                guard let address = IPAddress(networkBytes: attribute.payload) else { continue }
                target = "\(address)/\(route.rtm_dst_len)"
            case Int(RTA_TABLE.rawValue): table = attribute.host32 ?? table
            default: continue
            }
        }
        return (target, table)
    }

    /// Objects that routes refer to (linux/nexthop.h).
    private static func nextHops(_ socket: NetlinkSocket) throws(NetlinkError) -> [SidePath] {
        let headerSize = MemoryLayout<nhmsg>.size
        let answers: [NetlinkMessage]
        do {
            answers = try socket.dump(
                RouteQuestion.make(RTM_GETNEXTHOP, nhmsg()),
                operation: "list next hops",
                atMost: most
            )
        } catch  where error.errno == EOPNOTSUPP {
            // Before Linux 5.3.
            return []
        }
        return answers.compactMap { message in
            guard message.header.nlmsg_type == UInt16(RTM_NEWNEXTHOP), message.payload.count >= headerSize else {
                return nil
            }
            let attributes = NetlinkAttributes(message.payload.dropFirst(headerSize))
            guard let type = attributes.first(where: { $0.type == Int(NHA_ENCAP_TYPE) })?.host16,
                let kind = name(ofEncapsulation: type)
            else { return nil }
            let id = attributes.first { $0.type == Int(NHA_ID) }?.host32 ?? 0
            return SidePath(what: "next hop \(id) with encapsulation \(kind)", remedy: "ip nexthop del id \(id)")
        }
    }

    /// XFRM_MSG_GETPOLICY (linux/xfrm.h).
    private static let getPolicy = 0x15
    private static let newPolicy: UInt16 = 0x13

    /// IPsec policies: packets that they are for leave as others.
    private static func transformations() throws(NetlinkError) -> [SidePath] {
        let policies: [NetlinkMessage]
        do {
            let socket = try NetlinkSocket(bus: NETLINK_XFRM)
            // struct xfrm_userpolicy_id, which a dump does not look at.
            let any = (UInt64(0), UInt64(0), UInt64(0), UInt64(0), UInt64(0), UInt64(0), UInt64(0), UInt64(0))
            policies = try socket.dump(
                RouteQuestion.make(getPolicy, any),
                operation: "list IPsec policies",
                atMost: most
            )
        } catch  where [EPROTONOSUPPORT, EOPNOTSUPP].contains(error.errno) {
            return []
        }
        let count = policies.count { $0.header.nlmsg_type == newPolicy }
        guard count > 0 else { return [] }
        return [
            SidePath(what: count == 1 ? "an IPsec policy" : "\(count) IPsec policies", remedy: "ip xfrm policy flush")
        ]
    }
}
