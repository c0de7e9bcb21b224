internal import CLinux
internal import CMnl
internal import Glibc

/// The kernel's socket diagnosis (sock_diag(7), `<linux/sock_diag.h>`) of the calling thread's network namespace.
enum SocketDiagnosis {
    /// Asks for sockets, and gives the payload of each message that tells of one to `take`.
    /// - Parameters:
    ///   - request: what is asked: `struct inet_diag_req_v2` or `struct unix_diag_req`.
    ///   - flags: NLM_F_REQUEST, with NLM_F_DUMP for all that fit rather than the one.
    ///   - operation: what an error says could not be done.
    /// - Throws: what the kernel refuses, such as ENOENT for a socket that is not there; EPROTO for what is cut short and
    ///   may lack a socket; ETIMEDOUT when nothing came for some seconds.
    static func ask(
        _ request: some BitwiseCopyable,
        flags: CInt,
        operation: String,
        take: (ArraySlice<UInt8>) -> Void
    ) throws(NamespaceError) {
        guard let socket = mnl_socket_open2(NETLINK_SOCK_DIAG, Int32(SOCK_CLOEXEC.rawValue)) else {
            throw NamespaceError("cannot open a socket diagnosis socket", errno: errno)
        }
        defer { mnl_socket_close(socket) }
        limitPatience(of: mnl_socket_get_fd(socket))
        let body = withUnsafeBytes(of: request, Array.init)
        var header = nlmsghdr()
        header.nlmsg_len = UInt32(MemoryLayout<nlmsghdr>.size + body.count)
        header.nlmsg_type = UInt16(SOCK_DIAG_BY_FAMILY)
        header.nlmsg_flags = UInt16(flags)
        let message = withUnsafeBytes(of: header, Array.init) + body
        guard message.withUnsafeBytes({ mnl_socket_sendto(socket, $0.baseAddress, $0.count) }) == message.count else {
            throw NamespaceError(operation, errno: errno)
        }
        var buffer = [UInt8](repeating: 0, count: 32 * 1024)
        while true {
            let count = mnl_socket_recvfrom(socket, &buffer, buffer.count)
            if count < 0 && errno == EINTR { continue }
            guard count >= 0 else { throw NamespaceError(operation, errno: patienceError(errno)) }
            let isLast = try read(buffer[..<count], operation: operation, take: take)
            if isLast || flags & NLM_F_DUMP == 0 { return }
        }
    }

    /// Takes the messages of one datagram; whether they were the last of a listing.
    private static func read(
        _ datagram: ArraySlice<UInt8>,
        operation: String,
        take: (ArraySlice<UInt8>) -> Void
    ) throws(NamespaceError) -> Bool {
        let headerSize = MemoryLayout<nlmsghdr>.size
        var rest = datagram
        while rest.count >= headerSize {
            let header = rest.withUnsafeBytes { $0.loadUnaligned(as: nlmsghdr.self) }
            let length = Int(header.nlmsg_len)
            guard (headerSize...rest.count).contains(length) else { throw NamespaceError(operation, errno: EPROTO) }
            let body = rest.dropFirst(headerSize).prefix(length - headerSize)
            if header.nlmsg_type == UInt16(NLMSG_DONE) { return true }
            if header.nlmsg_type == UInt16(NLMSG_ERROR) {
                let error = body.count >= 4 ? body.withUnsafeBytes { -$0.loadUnaligned(as: Int32.self) } : EPROTO
                throw NamespaceError(operation, errno: error)
            }
            take(body)
            rest = rest.dropFirst((length + 3) & ~3)
        }
        return false
    }
}
