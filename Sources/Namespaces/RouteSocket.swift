internal import CLinux
internal import CMnl
internal import Glibc

/// A NETLINK_ROUTE socket in the network namespace of the thread that opened it. Every request is acknowledged before
/// the next one is sent, so an error names the request that caused it.
final class RouteSocket {
    private let socket: OpaquePointer
    private var sequence: UInt32 = 0

    /// Opens the socket, close-on-exec, in the calling thread's namespace. It is told of changes to `groups` (RTMGRP_…).
    init(groups: UInt32 = 0) throws(NamespaceError) {
        guard let socket = mnl_socket_open2(NETLINK_ROUTE, Int32(SOCK_CLOEXEC.rawValue)) else {
            throw NamespaceError("cannot open a route netlink socket", errno: errno)
        }
        self.socket = socket
        limitPatience(of: mnl_socket_get_fd(socket))
        var enabled: CInt = 1
        // Extended acknowledgements only improve messages; the kernel may be older than they are.
        mnl_socket_setsockopt(socket, NETLINK_EXT_ACK, &enabled, socklen_t(MemoryLayout<CInt>.size))
        guard mnl_socket_bind(socket, groups, MNL_SOCKET_AUTOPID) == 0 else {
            throw NamespaceError("cannot bind a route netlink socket", errno: errno)
        }
    }

    deinit {
        mnl_socket_close(socket)
    }

    /// Sends one request and waits for the kernel's acknowledgement. Returns the payload of the message that came before
    /// it, if there was one: the answer to a question.
    @discardableResult
    func transact(_ message: RouteMessage) throws(NamespaceError) -> [UInt8]? {
        sequence += 1
        message.header.pointee.nlmsg_seq = sequence
        let length = Int(message.header.pointee.nlmsg_len)
        guard mnl_socket_sendto(socket, message.header, length) == length else {
            throw NamespaceError(message.operation, errno: errno)
        }
        var buffer = [UInt8](repeating: 0, count: 8192)
        var answer: [UInt8]?
        while true {
            let received = mnl_socket_recvfrom(socket, &buffer, buffer.count)
            if received < 0 && errno == EINTR { continue }
            guard received >= 0 else { throw NamespaceError(message.operation, errno: patienceError(errno)) }
            guard let acknowledgement = Acknowledgement(buffer[..<received], sequence: sequence) else {
                answer = Self.payload(buffer[..<received], sequence: sequence) ?? answer
                continue
            }
            guard acknowledgement.error == 0 else {
                throw NamespaceError(message.operation, errno: acknowledgement.error, detail: acknowledgement.detail)
            }
            return answer
        }
    }

    /// Readable when there is a change.
    var descriptor: CInt { mnl_socket_get_fd(socket) }

    /// Takes all changes that have come, without waiting.
    func takeChanges() {
        var buffer = [UInt8](repeating: 0, count: 8192)
        // Also after ENOBUFS, which says that some were lost: whoever asks looks at everything anyway.
        while recv(descriptor, &buffer, buffer.count, CInt(MSG_DONTWAIT)) >= 0 || errno == ENOBUFS || errno == EINTR {}
    }

    /// Waits for `milliseconds` at most until there is a change to one of the groups, and takes it.
    func awaitChange(milliseconds: CInt) {
        var source = pollfd(fd: mnl_socket_get_fd(socket), events: Int16(POLLIN), revents: 0)
        guard poll(&source, 1, milliseconds) == 1 else { return }
        var buffer = [UInt8](repeating: 0, count: 8192)
        _ = mnl_socket_recvfrom(socket, &buffer, buffer.count)
    }

    private static func payload(_ bytes: ArraySlice<UInt8>, sequence: UInt32) -> [UInt8]? {
        let headerSize = MemoryLayout<nlmsghdr>.size
        guard bytes.count >= headerSize else { return nil }
        let header = bytes.withUnsafeBytes { $0.loadUnaligned(as: nlmsghdr.self) }
        guard header.nlmsg_seq == sequence, (headerSize...bytes.count).contains(Int(header.nlmsg_len)) else {
            return nil
        }
        return Array(bytes.prefix(Int(header.nlmsg_len)).dropFirst(headerSize))
    }
}

/// Has reading from a netlink socket fail when nothing came for some seconds: the kernel answers at once, and an answer
/// that got lost never comes.
func limitPatience(of descriptor: CInt) {
    var patience = timeval(tv_sec: 5, tv_usec: 0)
    setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &patience, socklen_t(MemoryLayout<timeval>.size))
}

/// The error of a read, which after ``limitPatience(of:)`` may be that nothing came.
func patienceError(_ error: CInt) -> CInt { error == EAGAIN ? ETIMEDOUT : error }

/// The kernel's answer to one request: `struct nlmsgerr` and, with NETLINK_EXT_ACK, its attributes.
private struct Acknowledgement {
    /// 0, or a positive error number.
    let error: CInt
    /// NLMSGERR_ATTR_MSG, or empty.
    let detail: String

    /// Finds the acknowledgement of `sequence` in what was received; `nil` when the datagram holds none.
    init?(_ bytes: ArraySlice<UInt8>, sequence: UInt32) {
        let headerSize = MemoryLayout<nlmsghdr>.size
        guard bytes.count >= headerSize + MemoryLayout<nlmsgerr>.size else { return nil }
        let (header, body) = bytes.withUnsafeBytes {
            ($0.loadUnaligned(as: nlmsghdr.self), $0.loadUnaligned(fromByteOffset: headerSize, as: nlmsgerr.self))
        }
        guard header.nlmsg_type == UInt16(NLMSG_ERROR), header.nlmsg_seq == sequence else { return nil }
        error = -body.error
        // The request's header stands in the answer, its payload only when it was refused and NETLINK_CAP_ACK is off.
        var offset = headerSize + MemoryLayout<nlmsgerr>.size
        if header.nlmsg_flags & UInt16(NLM_F_CAPPED) == 0 { offset += Int(body.msg.nlmsg_len) - headerSize }
        detail = header.nlmsg_flags & UInt16(NLM_F_ACK_TLVS) == 0 ? "" : Self.message(in: bytes.dropFirst(offset))
    }

    private static func message(in attributes: ArraySlice<UInt8>) -> String {
        var rest = attributes
        while rest.count >= 4 {
            let (length, type) = rest.withUnsafeBytes {
                (Int($0.loadUnaligned(as: UInt16.self)), $0.loadUnaligned(fromByteOffset: 2, as: UInt16.self))
            }
            guard (4...rest.count).contains(length) else { return "" }
            if type == UInt16(NLMSGERR_ATTR_MSG.rawValue) {
                return String(decoding: rest.dropFirst(4).prefix(length - 4).prefix { $0 != 0 }, as: UTF8.self)
            }
            rest = rest.dropFirst((length + 3) & ~3)
        }
        return ""
    }
}
