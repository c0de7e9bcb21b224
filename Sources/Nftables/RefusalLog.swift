import CNftnl
import Glibc

/// Reads what the kernel reports of a sandbox's network namespace: what its rules refused, from an NFLOG group, and that
/// somebody else changed the ruleset. Confined to one thread.
///
/// The kernel tells of each packet at once until ``collect()``, then of up to 16 or a fiftieth of a second together. It
/// records no more than the rule's limit lets through; what it could not deliver after that is counted.
public final class RefusalLog {
    private let socket: NetlinkSocket
    private let group: UInt16
    private let watch: RulesetWatch?
    private var change: RulesetChange?
    private var nextSequence: UInt32 = 0
    private var hasEnded = false

    /// Gaps in the numbers of the packets since ``takeLostCount()``.
    private var lost: UInt64 = 0
    /// How many packets the kernel has recorded, those included that were lost on the way here.
    public private(set) var loggedCount: UInt64 = 0

    /// Bytes of a packet that are wanted: the longest header chain of use, and ports.
    static let packetBytes: UInt32 = 128
    /// How many datagrams are read in one go; others on the loop want their turn.
    private static let datagramsAtOnce = 64

    /// Binds `group` of the calling thread's network namespace. Throws EPERM when another socket has it.
    public convenience init(group: UInt16) throws(NetlinkError) {
        try self.init(socket: try NetlinkSocket(), group: group)
    }

    /// Binds `group` of the namespace that `socket` was opened in; the socket has no other use then. Changes of the
    /// ruleset are watched where `trusted` is given, the socket that makes our own.
    public init(socket: NetlinkSocket, group: UInt16, trusted: NetlinkSocket? = nil) throws(NetlinkError) {
        self.socket = socket
        self.group = group
        self.watch = try trusted.map { trusted throws(NetlinkError) in
            try RulesetWatch(reports: socket, trusted: trusted)
        }
        let bind = nfulnl_msg_config_cmd(command: UInt8(NFULNL_CFG_CMD_BIND.rawValue))
        try configure(group, "bind", Int(NFULA_CFG_CMD.rawValue), [bind.command])
        try configure(
            group,
            "set the copy mode of",
            Int(NFULA_CFG_MODE.rawValue),
            Self.packetBytes.bigEndianBytes + [UInt8(NFULNL_COPY_PACKET), 0]
        )
        try configure(
            group,
            "number the packets of",
            Int(NFULA_CFG_FLAGS.rawValue),
            UInt16(NFULNL_CFG_F_SEQ).bigEndianBytes
        )
        // In hundredths of a second.
        try configure(group, "set the timeout of", Int(NFULA_CFG_TIMEOUT.rawValue), UInt32(2).bigEndianBytes)
        try configure(group, "set the threshold of", Int(NFULA_CFG_QTHRESH.rawValue), UInt32(1).bigEndianBytes)
    }

    /// Has the kernel collect packets, which costs less when there are many. Somebody who waits for one, as the self-test
    /// does, waits longer then.
    public func collect() {
        let message = configuration(group, Int(NFULA_CFG_QTHRESH.rawValue), UInt32(16).bigEndianBytes)
        // Where the kernel does not, each packet is told of by itself, as before.
        try? socket.post(message, operation: "set the threshold of NFLOG group \(group)")
    }

    /// Has the kernel deliver what it has collected, and report no packet from then on: what was refused before this
    /// returns is there to be read.
    public func end() {
        guard !hasEnded else { return }
        hasEnded = true
        // The kernel does it while it is sent to, so there is no answer to wait for. Where it does not, the packets are
        // missing from those that arrived, and are counted as lost.
        let command = nfulnl_msg_config_cmd(command: UInt8(NFULNL_CFG_CMD_UNBIND.rawValue)).command
        let message = configuration(group, Int(NFULA_CFG_CMD.rawValue), [command])
        try? socket.post(message, operation: "unbind NFLOG group \(group)")
    }

    /// The descriptor to watch: readable when ``read()`` has something. It stays the socket's own.
    public var descriptor: CInt { socket.descriptor }

    /// What has been recorded since the last call; empty when nothing is there. Never blocks.
    public func read() throws(NetlinkError) -> [RefusedPacket] {
        var packets: [RefusedPacket] = []
        for _ in 0..<Self.datagramsAtOnce {
            switch socket.receive() {
            case .datagram(let bytes):
                for message in NetlinkMessages(bytes) { take(message, into: &packets) }
            case .wouldBlock: return packets
            case .failed(let error):
                // Most often an overrun, which is told once; the numbers of the packets say how many were lost. Whatever it is,
                // a change may have been told of that nobody has heard.
                change = change ?? watch?.compare()
                if error != ENOBUFS { throw NetlinkError(operation: "read refused packets", errno: error) }
            }
        }
        return packets
    }

    /// How many packets were recorded and did not arrive, since the last call.
    public func takeLostCount() -> UInt64 {
        defer { lost = 0 }
        return lost
    }

    /// That somebody else changed the ruleset, as far as ``read()`` has come; once.
    public func takeRulesetChange() -> RulesetChange? {
        defer { change = nil }
        return change
    }

    /// Lets another socket of ours change the ruleset. It has changed nothing yet.
    public func trust(_ socket: NetlinkSocket) throws(NetlinkError) {
        try watch?.trust(socket)
    }

    private func take(_ message: NetlinkMessage, into packets: inout [RefusedPacket]) {
        if watch != nil { change = RulesetWatch.read(message, adding: change) }
        guard let (packet, sequence) = Self.read(message) else { return }
        if let sequence {
            lost += UInt64(sequence &- nextSequence)
            loggedCount += UInt64(sequence &- nextSequence) + 1
            nextSequence = sequence &+ 1
        }
        if let packet { packets.append(packet) }
    }

    /// The packet in a message of the group, unless it is malformed, and the packet's number; `nil` for any other message.
    static func read(_ message: NetlinkMessage) -> (packet: RefusedPacket?, sequence: UInt32?)? {
        let type = UInt16(NFNL_SUBSYS_ULOG) << 8 | UInt16(NFULNL_MSG_PACKET.rawValue)
        guard message.header.nlmsg_type == type else { return nil }
        var payload: ArraySlice<UInt8> = []
        var prefix = ""
        var uid: UInt32?
        var sequence: UInt32?
        for attribute in NetlinkAttributes(message.payload.dropFirst(MemoryLayout<nfgenmsg>.size)) {
            switch attribute.type {
            case Int(NFULA_PAYLOAD.rawValue): payload = attribute.payload
            case Int(NFULA_PREFIX.rawValue): prefix = attribute.text
            case Int(NFULA_UID.rawValue): uid = attribute.bigEndian32
            case Int(NFULA_SEQ.rawValue): sequence = attribute.bigEndian32 ?? sequence
            default: continue
            }
        }
        return (RefusedPacket(packet: payload, uid: uid, prefix: prefix), sequence)
    }

    private func configure(
        _ group: UInt16,
        _ verb: String,
        _ attribute: Int,
        _ value: [UInt8]
    ) throws(NetlinkError) {
        try socket.request(configuration(group, attribute, value), operation: "\(verb) NFLOG group \(group)")
    }

    /// One NFULNL_MSG_CONFIG message with one attribute.
    private func configuration(_ group: UInt16, _ attribute: Int, _ value: [UInt8]) -> [UInt8] {
        var header = nlmsghdr()
        header.nlmsg_type = UInt16(NFNL_SUBSYS_ULOG) << 8 | UInt16(NFULNL_MSG_CONFIG.rawValue)
        let address = nfgenmsg(
            nfgen_family: UInt8(AF_UNSPEC),
            version: UInt8(NFNETLINK_V0),
            res_id: group.bigEndian
        )
        let attributeHeader = nlattr(nla_len: UInt16(4 + value.count), nla_type: UInt16(attribute))
        var body =
            withUnsafeBytes(of: address) { Array($0) } + withUnsafeBytes(of: attributeHeader) { Array($0) } + value
        while body.count % 4 != 0 { body.append(0) }
        header.nlmsg_len = UInt32(MemoryLayout<nlmsghdr>.size + body.count)
        return withUnsafeBytes(of: header) { Array($0) } + body
    }
}

extension UInt32 {
    /// The four bytes in network order.
    fileprivate var bigEndianBytes: [UInt8] { withUnsafeBytes(of: bigEndian) { Array($0) } }
}
