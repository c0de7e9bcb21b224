import CNftnl
import Glibc

/// A netlink socket. It belongs to the network namespace of the thread that made it, wherever it is used later.
/// Confined to one thread at a time; a table with an owner belongs to the socket that made it.
public final class NetlinkSocket {
    /// NETLINK_NETFILTER (linux/netlink.h): nftables, NFLOG and conntrack.
    public static let netfilter: CInt = NETLINK_NETFILTER

    /// The socket's descriptor, non-blocking. It stays the socket's own: register it, never close it.
    public let descriptor: CInt
    /// The socket's address in its namespace; the kernel's own is 0.
    let portID: UInt32
    private var lastSequence: UInt32
    /// How many batches this socket has put in force; each that changed something is a generation of the namespace's ruleset.
    private(set) var commitCount: UInt32 = 0
    /// How many of them only took away, perhaps what was not there: such a batch makes no generation.
    private(set) var idleCommitCount: UInt32 = 0
    /// How many batches may be in force or not: the kernel's answer was lost.
    private(set) var uncertainCommitCount: UInt32 = 0
    /// The longest datagram that can be sent, in bytes: what the kernel's netlink_sendmsg compares with.
    let longestDatagram: Int

    /// Room for the answers to a batch, in bytes, where the kernel grants it.
    private static let bufferSize: CInt = 8 << 20
    /// A single answer is at most this long: the kernel fills datagrams up to 32 KiB.
    private static let datagramSize = 64 * 1024
    /// An acknowledgement or an error is: with NETLINK_CAP_ACK, two headers, a number, and a line of text.
    private static let replySize = 512

    /// Opens a socket of `bus` (NETLINK_…) in the calling thread's network namespace.
    public convenience init(bus: CInt = NetlinkSocket.netfilter) throws(NetlinkError) {
        try self.init(bus: bus, bufferSize: Self.bufferSize)
    }

    convenience init(bus: CInt, bufferSize: CInt) throws(NetlinkError) {
        let descriptor = socket(AF_NETLINK, CInt(SOCK_RAW.rawValue) | closeOnExecNonBlocking, bus)
        guard descriptor >= 0 else { throw NetlinkError(operation: "open a netlink socket", errno: errno) }
        var address = sockaddr_nl()
        address.nl_family = sa_family_t(AF_NETLINK)
        let status = withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { pointer in
                bind(descriptor, pointer, socklen_t(MemoryLayout<sockaddr_nl>.size))
            }
        }
        guard status == 0 else {
            let error = NetlinkError(operation: "bind a netlink socket", errno: errno)
            close(descriptor)
            throw error
        }
        Self.setBuffers(of: descriptor, to: bufferSize)
        for option in [NETLINK_CAP_ACK, NETLINK_EXT_ACK] {
            var one: CInt = 1
            setsockopt(descriptor, SOL_NETLINK, option, &one, socklen_t(MemoryLayout<CInt>.size))
        }
        try self.init(adopting: descriptor)
    }

    /// Takes over a socket that was opened with ``init(bus:)``, by another process in its namespace, and sent here. The
    /// kernel permits on it what both that process and this one may do there.
    public init(adopting descriptor: CInt) throws(NetlinkError) {
        do {
            self.portID = try Self.portID(of: descriptor)
        } catch {
            close(descriptor)
            throw error
        }
        self.descriptor = descriptor
        self.lastSequence = UInt32.random(in: 1..<(1 << 30))
        self.longestDatagram = Self.longestDatagram(of: descriptor)
    }

    private static func portID(of descriptor: CInt) throws(NetlinkError) -> UInt32 {
        var address = sockaddr_nl()
        var length = socklen_t(MemoryLayout<sockaddr_nl>.size)
        let status = withUnsafeMutablePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { getsockname(descriptor, $0, &length) }
        }
        guard status == 0, address.nl_family == sa_family_t(AF_NETLINK) else {
            throw NetlinkError(operation: "ask a netlink socket for its port", errno: status == 0 ? EINVAL : errno)
        }
        return address.nl_pid
    }

    deinit {
        close(descriptor)
    }

    private static func setBuffers(of descriptor: CInt, to bufferSize: CInt) {
        for (forced, plain) in [(SO_RCVBUFFORCE, SO_RCVBUF), (SO_SNDBUFFORCE, SO_SNDBUF)] {
            var size = bufferSize
            let length = socklen_t(MemoryLayout<CInt>.size)
            if setsockopt(descriptor, SOL_SOCKET, forced, &size, length) != 0 {
                setsockopt(descriptor, SOL_SOCKET, plain, &size, length)
            }
        }
    }

    /// Without CAP_NET_ADMIN in the first user namespace the system's limit holds, and large batches have to be split.
    private static func longestDatagram(of descriptor: CInt) -> Int {
        var granted: CInt = 0
        var length = socklen_t(MemoryLayout<CInt>.size)
        getsockopt(descriptor, SOL_SOCKET, SO_SNDBUF, &granted, &length)
        return Int(granted) - 32
    }
}

private let closeOnExecNonBlocking = CInt(SOCK_CLOEXEC.rawValue) | CInt(SOCK_NONBLOCK.rawValue)

// MARK: - Requests

extension NetlinkSocket {
    /// Sends a batch and returns when the kernel has put all of it in force. An error means that none of it is, and
    /// names the first message that failed; only ENOBUFS and EPROTO leave that open.
    func commit(_ batch: Batch) throws(NetlinkError) {
        guard !batch.isEmpty else { return }
        let begin = lastSequence &+ 1
        let count = UInt32(batch.changes.count)
        lastSequence = begin &+ count &+ 1
        try send(batch.datagram(sequence: begin), operation: batch.summary)
        var failure: NetlinkError?
        do {
            try collectReplies(
                first: begin,
                last: begin &+ count,
                upTo: Self.replySize,
                operation: batch.summary
            ) { reply in
                guard reply.errno != 0, failure == nil else { return }
                let index = Int(reply.sequence &- begin) - 1
                failure = NetlinkError(
                    operation: index >= 0 ? batch.changes[index].description : batch.summary,
                    errno: reply.errno,
                    messageIndex: index >= 0 ? index : nil,
                    detail: reply.detail
                )
            }
        } catch {
            uncertainCommitCount &+= 1
            throw error
        }
        if let failure { throw failure }
        commitCount &+= 1
        if batch.mayChangeNothing { idleCommitCount &+= 1 }
    }

    /// Sends one message outside of a batch, with its flags and sequence number set here, and awaits its
    /// acknowledgement. `message` begins with an nlmsghdr.
    func request(_ message: [UInt8], operation: String) throws(NetlinkError) {
        _ = try query(message, operation: operation)
    }

    /// ``request(_:operation:)`` without awaiting the acknowledgement, for a socket on which records arrive.
    func post(_ message: [UInt8], operation: String) throws(NetlinkError) {
        var message = message
        message.withUnsafeMutableBytes { buffer in
            var header = buffer.loadUnaligned(as: nlmsghdr.self)
            header.nlmsg_flags |= UInt16(NLM_F_REQUEST)
            buffer.storeBytes(of: header, as: nlmsghdr.self)
        }
        try send(message, operation: operation)
    }

    /// ``request(_:operation:)`` for a question: returns the messages that came before the acknowledgement.
    func query(_ message: [UInt8], operation: String) throws(NetlinkError) -> [NetlinkMessage] {
        lastSequence &+= 1
        var message = message
        message.withUnsafeMutableBytes { buffer in
            var header = buffer.loadUnaligned(as: nlmsghdr.self)
            header.nlmsg_flags |= UInt16(NLM_F_REQUEST | NLM_F_ACK)
            header.nlmsg_seq = lastSequence
            buffer.storeBytes(of: header, as: nlmsghdr.self)
        }
        try send(message, operation: operation)
        var failure: NetlinkError?
        var answers: [NetlinkMessage] = []
        try collectReplies(
            first: lastSequence,
            last: lastSequence,
            upTo: Self.datagramSize,
            operation: operation,
            answer: { answers.append($0) },
            { reply in
                if reply.errno != 0 {
                    failure = NetlinkError(operation: operation, errno: reply.errno, detail: reply.detail)
                }
            }
        )
        if let failure { throw failure }
        return answers
    }

    /// Sends a question for everything of a kind (NLM_F_DUMP) and returns the messages of the answer, or throws E2BIG when
    /// they are more than `most`. Asks again when what was listed changed meanwhile.
    func dump(
        _ message: [UInt8],
        operation: String,
        atMost most: Int = .max
    ) throws(NetlinkError) -> [NetlinkMessage] {
        for _ in 0..<Self.dumpAttempts {
            if let answers = try dumpOnce(message, operation: operation, most) { return answers }
        }
        throw NetlinkError(operation: operation, errno: EINTR)
    }

    private static let dumpAttempts = 16

    /// `nil` when what was listed changed meanwhile.
    private func dumpOnce(
        _ message: [UInt8],
        operation: String,
        _ most: Int
    ) throws(NetlinkError) -> [NetlinkMessage]? {
        lastSequence &+= 1
        var message = message
        message.withUnsafeMutableBytes { buffer in
            var header = buffer.loadUnaligned(as: nlmsghdr.self)
            header.nlmsg_seq = lastSequence
            buffer.storeBytes(of: header, as: nlmsghdr.self)
        }
        try send(message, operation: operation)
        var answers: [NetlinkMessage] = []
        var isConsistent = true
        while true {
            switch receive(upTo: Self.datagramSize) {
            case .datagram(let bytes):
                var messages = NetlinkMessages(bytes)
                while let message = messages.next() {
                    guard message.header.nlmsg_pid == portID, message.header.nlmsg_seq == lastSequence else { continue }
                    if message.header.nlmsg_flags & UInt16(NLM_F_DUMP_INTR) != 0 { isConsistent = false }
                    if let reply = NetlinkReply(message) {
                        throw NetlinkError(operation: operation, errno: reply.errno, detail: reply.detail)
                    }
                    if message.header.nlmsg_type == UInt16(NLMSG_DONE) { return isConsistent ? answers : nil }
                    guard answers.count < most else { throw NetlinkError(operation: operation, errno: E2BIG) }
                    answers.append(message)
                }
                guard messages.isAtEnd else { throw NetlinkError(operation: operation, errno: EBADMSG) }
            // The kernel makes the next part when one was read: there is nothing to wait for.
            case .wouldBlock: throw NetlinkError(operation: operation, errno: EPROTO)
            case .failed(let error): throw NetlinkError(operation: operation, errno: error)
            }
        }
    }

    private func send(_ datagram: [UInt8], operation: String) throws(NetlinkError) {
        // The kernel's side (port 0) is where an unconnected netlink socket sends to.
        var count: Int
        repeat {
            count = datagram.withUnsafeBytes { Glibc.send(descriptor, $0.baseAddress, $0.count, 0) }
        } while count < 0 && errno == EINTR
        guard count >= 0 else { throw NetlinkError(operation: operation, errno: errno) }
        guard count == datagram.count else { throw NetlinkError(operation: operation, errno: EPROTO) }
    }

    /// Reads the acknowledgements and errors with sequence numbers `first` to `last` until that of `last`, or one that
    /// is the whole batch's error, in datagrams of at most `size` bytes. The kernel answers while it is sent to, in the order
    /// of the messages (nfnl_err_deliver, net/netfilter/nfnetlink.c), so all of them are there: nothing to wait for, and nothing to
    /// look for behind the last when all went well. That one was lost is said before the others are given out.
    private func collectReplies(
        first: UInt32,
        last: UInt32,
        upTo size: Int,
        operation: String,
        answer: (NetlinkMessage) -> Void = { _ in },
        _ take: (NetlinkReply) -> Void
    ) throws(NetlinkError) {
        var isComplete = false
        var hasFailure = false
        var hasLost = false
        reading: while !isComplete || hasFailure {
            switch receive(upTo: size) {
            case .datagram(let bytes):
                var messages = NetlinkMessages(bytes)
                while let message = messages.next() {
                    guard message.header.nlmsg_pid == portID, message.header.nlmsg_seq &- first <= last &- first
                    else { continue }
                    guard let reply = NetlinkReply(message) else {
                        if message.header.nlmsg_type >= UInt16(NLMSG_MIN_TYPE) { answer(message) }
                        continue
                    }
                    if reply.sequence == last || (reply.sequence == first && reply.errno != 0) { isComplete = true }
                    hasFailure = hasFailure || reply.errno != 0
                    take(reply)
                }
                if !messages.isAtEnd { hasLost = true }
            case .wouldBlock: break reading
            case .failed(ENOBUFS): hasLost = true
            case .failed(let error): throw NetlinkError(operation: operation, errno: error)
            }
        }
        guard !hasFailure else { return }
        // A lost answer may have been an error.
        if hasLost { throw NetlinkError(operation: operation, errno: ENOBUFS) }
        if !isComplete { throw NetlinkError(operation: operation, errno: EPROTO) }
    }
}

// MARK: - Notifications

extension NetlinkSocket {
    /// Has the kernel send what it tells `group` (NFNLGRP_…, linux/netfilter/nfnetlink.h). Needs CAP_NET_ADMIN over the
    /// socket's namespace.
    func join(group: UInt32) throws(NetlinkError) {
        var group = CInt(group)
        let length = socklen_t(MemoryLayout<CInt>.size)
        guard setsockopt(descriptor, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &group, length) == 0 else {
            throw NetlinkError(operation: "listen to a netlink group", errno: errno)
        }
    }

    /// Has the kernel run a program of the classic Berkeley Packet Filter over every datagram before it is queued here
    /// (socket(7), SO_ATTACH_FILTER); 0 drops it. Takes the place of the one before.
    func filter(by program: [sock_filter]) throws(NetlinkError) {
        var program = program
        let status = program.withUnsafeMutableBufferPointer { instructions in
            var filter = sock_fprog(len: UInt16(instructions.count), filter: instructions.baseAddress)
            return setsockopt(
                descriptor,
                SOL_SOCKET,
                SO_ATTACH_FILTER,
                &filter,
                socklen_t(MemoryLayout<sock_fprog>.size)
            )
        }
        guard status == 0 else { throw NetlinkError(operation: "filter a netlink socket", errno: errno) }
    }
}

// MARK: - Receiving

extension NetlinkSocket {
    enum Received {
        case datagram([UInt8])
        case wouldBlock
        case failed(CInt)
    }

    /// One datagram from the kernel, of at most `size` bytes. What other processes send to this socket is thrown away.
    func receive(upTo size: Int = datagramSize) -> Received {
        while true {
            var sender = sockaddr_nl()
            var length = socklen_t(MemoryLayout<sockaddr_nl>.size)
            var failure: CInt = 0
            let bytes = [UInt8](unsafeUninitializedCapacity: size) { buffer, count in
                let received = withUnsafeMutablePointer(to: &sender) { pointer in
                    pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { pointer in
                        recvfrom(descriptor, buffer.baseAddress, buffer.count, CInt(MSG_TRUNC), pointer, &length)
                    }
                }
                if received < 0 {
                    failure = errno
                } else if received > buffer.count {
                    failure = EMSGSIZE
                } else {
                    count = received
                }
            }
            switch failure {
            case 0 where sender.nl_pid == 0: return .datagram(bytes)
            case 0, EINTR: continue
            case EAGAIN: return .wouldBlock
            default: return .failed(failure)
            }
        }
    }
}
