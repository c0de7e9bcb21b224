internal import CLinux
internal import CMnl
internal import Glibc
public import NetPrimitives

/// A TCP socket that listens, as the kernel's socket diagnosis tells of it (`<linux/inet_diag.h>`): not an address, but this
/// one socket, which no other one is mistaken for while the kernel runs.
public struct ListeningSocket: Hashable, Sendable {
    /// Where it listens.
    public let endpoint: Endpoint
    /// The number by which `/proc/PID/fd` names it; used again when the socket is gone.
    public let inode: UInt32
    /// The number that the kernel gives no second socket.
    private let cookie: Cookie

    private struct Cookie: Hashable {
        let low: UInt32
        let high: UInt32
    }

    /// Those that listen at an IPv4 address in the calling thread's network namespace.
    public static func all(at address: IPAddress) throws(NamespaceError) -> [ListeningSocket] {
        var request = inet_diag_req_v2()
        request.sdiag_family = UInt8(AF_INET)
        request.sdiag_protocol = UInt8(IPPROTO_TCP)
        request.idiag_states = 1 << listening
        return try ask(request, flags: NLM_F_REQUEST | NLM_F_DUMP).filter { $0.endpoint.address == address }
    }

    /// Whether it listens still, in the calling thread's network namespace. Then it has all the time, and nobody else could at
    /// its address. `false` also when that cannot be found out.
    public var listensStill: Bool {
        var request = inet_diag_req_v2()
        request.sdiag_family = UInt8(AF_INET)
        request.sdiag_protocol = UInt8(IPPROTO_TCP)
        request.idiag_states = 1 << Self.listening
        request.id.idiag_sport = endpoint.port.bigEndian
        withUnsafeMutableBytes(of: &request.id.idiag_src) { $0.copyBytes(from: endpoint.address.networkBytes) }
        // The kernel compares it: another socket at the address is none.
        request.id.idiag_cookie = (cookie.low, cookie.high)
        return (try? Self.ask(request, flags: NLM_F_REQUEST)) == [self]
    }

    // MARK: - Asking the kernel

    /// TCP_LISTEN of the kernel's net/tcp_states.h, which it has no header for.
    private static let listening: UInt32 = 10

    private static func ask(_ body: inet_diag_req_v2, flags: CInt) throws(NamespaceError) -> [ListeningSocket] {
        guard let socket = mnl_socket_open2(NETLINK_SOCK_DIAG, Int32(SOCK_CLOEXEC.rawValue)) else {
            throw NamespaceError("cannot open a socket diagnosis socket", errno: errno)
        }
        defer { mnl_socket_close(socket) }
        limitPatience(of: mnl_socket_get_fd(socket))
        var header = nlmsghdr()
        header.nlmsg_len = UInt32(MemoryLayout<nlmsghdr>.size + MemoryLayout<inet_diag_req_v2>.size)
        header.nlmsg_type = UInt16(SOCK_DIAG_BY_FAMILY)
        header.nlmsg_flags = UInt16(flags)
        let request = withUnsafeBytes(of: header, Array.init) + withUnsafeBytes(of: body, Array.init)
        guard request.withUnsafeBytes({ mnl_socket_sendto(socket, $0.baseAddress, $0.count) }) == request.count else {
            throw NamespaceError("cannot list listening sockets", errno: errno)
        }
        var found: [ListeningSocket] = []
        var buffer = [UInt8](repeating: 0, count: 32 * 1024)
        while true {
            let count = mnl_socket_recvfrom(socket, &buffer, buffer.count)
            if count < 0 && errno == EINTR { continue }
            guard count >= 0 else {
                throw NamespaceError("cannot list listening sockets", errno: patienceError(errno))
            }
            let isLast = try read(buffer[..<count], into: &found)
            if isLast || flags & NLM_F_DUMP == 0 { return found }
        }
    }

    /// Takes the messages of one datagram; whether they were the last of a listing.
    private static func read(
        _ datagram: ArraySlice<UInt8>,
        into found: inout [ListeningSocket]
    ) throws(NamespaceError) -> Bool {
        let headerSize = MemoryLayout<nlmsghdr>.size
        var rest = datagram
        while rest.count >= headerSize {
            let header = rest.withUnsafeBytes { $0.loadUnaligned(as: nlmsghdr.self) }
            let length = Int(header.nlmsg_len)
            guard (headerSize...rest.count).contains(length) else {
                throw NamespaceError("cannot list listening sockets", errno: EPROTO)
            }
            let body = rest.dropFirst(headerSize).prefix(length - headerSize)
            if header.nlmsg_type == UInt16(NLMSG_DONE) { return true }
            if header.nlmsg_type == UInt16(NLMSG_ERROR) {
                let error = body.count >= 4 ? body.withUnsafeBytes { -$0.loadUnaligned(as: Int32.self) } : EPROTO
                throw NamespaceError("cannot list listening sockets", errno: error)
            }
            if body.count >= MemoryLayout<inet_diag_msg>.size {
                found.append(ListeningSocket(body.withUnsafeBytes { $0.loadUnaligned(as: inet_diag_msg.self) }))
            }
            rest = rest.dropFirst((length + 3) & ~3)
        }
        return false
    }

    private init(_ message: inet_diag_msg) {
        let address = IPAddress(v4: UInt32(bigEndian: message.id.idiag_src.0))
        endpoint = Endpoint(address, UInt16(bigEndian: message.id.idiag_sport))
        inode = message.idiag_inode
        cookie = Cookie(low: message.id.idiag_cookie.0, high: message.id.idiag_cookie.1)
    }
}
