internal import CLinux
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
        var found: [ListeningSocket] = []
        try SocketDiagnosis.ask(body, flags: flags, operation: "cannot list listening sockets") { message in
            guard message.count >= MemoryLayout<inet_diag_msg>.size else { return }
            found.append(ListeningSocket(message.withUnsafeBytes { $0.loadUnaligned(as: inet_diag_msg.self) }))
        }
        return found
    }

    private init(_ message: inet_diag_msg) {
        let address = IPAddress(v4: UInt32(bigEndian: message.id.idiag_src.0))
        endpoint = Endpoint(address, UInt16(bigEndian: message.id.idiag_sport))
        inode = message.idiag_inode
        cookie = Cookie(low: message.id.idiag_cookie.0, high: message.id.idiag_cookie.1)
    }
}
