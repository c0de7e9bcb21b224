internal import CLinux
import Glibc
public import NetPrimitives

// Sockets come into being here, every one of them non-blocking and close-on-exec.
extension Sockets {
    /// Accepts a connection.
    public static func accept(_ descriptor: CInt) -> AcceptResult {
        while true {
            var address = SocketAddress()
            let (result, code) = retrying { address.fill { Int(clinux_accept(descriptor, $0, $1)) } }
            if result >= 0 {
                // An address that cannot be read is no connection of ours.
                guard let endpoint = address.endpoint else {
                    close(CInt(result))
                    continue
                }
                return .accepted(CInt(result), endpoint)
            }
            switch code {
            case EAGAIN: return .wouldBlock
            // Errors of the connection that was to be accepted, not of the listener: accept(2), "Error handling".
            case ECONNABORTED, EPROTO, ENETDOWN, ENOPROTOOPT, EHOSTDOWN, ENONET, EHOSTUNREACH, EOPNOTSUPP, ENETUNREACH:
                continue
            default: return .failed(code)
            }
        }
    }

    /// A listening TCP socket. An IPv6 one takes IPv6 only. Port 0 takes a free one.
    public static func tcpListener(_ endpoint: Endpoint, backlog: Int = 4_096) throws(SystemError) -> CInt {
        let descriptor = try bound(to: endpoint, type: SOCK_STREAM, "TCP")
        guard listen(descriptor, CInt(clamping: backlog)) == 0 else {
            let error = SystemError.current("listen on", "TCP \(endpoint)")
            close(descriptor)
            throw error
        }
        return descriptor
    }

    /// A TCP socket that is connected to nobody.
    public static func unconnectedSocket() throws(SystemError) -> CInt {
        try open(.v4, SOCK_STREAM, "TCP")
    }

    /// A bound UDP socket. An IPv6 one takes IPv6 only. Port 0 takes a free one.
    public static func udpSocket(_ endpoint: Endpoint) throws(SystemError) -> CInt {
        try bound(to: endpoint, type: SOCK_DGRAM, "UDP")
    }

    /// Whether `address` is one of the calling thread's namespace.
    public static func canBind(_ address: IPAddress) -> Bool {
        guard let descriptor = try? udpSocket(Endpoint(address, 0)) else { return false }
        close(descriptor)
        return true
    }

    /// Lets about so many bytes wait in the socket; without CAP_NET_ADMIN no more than the system's limit
    /// (net.core.rmem_max).
    public static func setReceiveBuffer(_ descriptor: CInt, bytes: Int) {
        let half = CInt(clamping: bytes / 2)  // the kernel doubles it
        if !setOption(descriptor, SOL_SOCKET, SO_RCVBUFFORCE, half) {
            setOption(descriptor, SOL_SOCKET, SO_RCVBUF, half)
        }
    }

    /// How many datagrams the kernel has lost at the socket, most often because too many waited there; counted from its
    /// opening, and again from 0 after 2³² of them.
    public static func lostDatagrams(_ descriptor: CInt) -> UInt32 {
        // SO_MEMINFO: the numbers that sock_diag(7) has, of which SK_MEMINFO_DROPS is the ninth.
        var numbers = InlineArray<9, UInt32>(repeating: 0)
        var length = socklen_t(MemoryLayout.size(ofValue: numbers))
        let result = getsockopt(descriptor, SOL_SOCKET, SO_MEMINFO, &numbers, &length)
        return result == 0 ? numbers[8] : 0
    }

    /// A UDP socket that sends to `endpoint` and receives from nowhere else, on a port that the kernel picks. About
    /// `receiveBytes` may wait in it. With a `pass` where the namespace asks for one.
    public static func udpSocket(
        connectedTo endpoint: Endpoint,
        receiveBytes: Int,
        pass: UpstreamPass? = nil
    ) throws(SystemError) -> CInt {
        let descriptor = try outgoing(endpoint.address.family, isStream: false, pass: pass, "UDP \(endpoint)")
        setReceiveBuffer(descriptor, bytes: receiveBytes)
        let code = connect(descriptor, to: endpoint)
        guard code == 0 else {
            close(descriptor)
            throw SystemError(operation: "connect", errno: code, context: "UDP \(endpoint)")
        }
        return descriptor
    }

    /// A raw socket for ICMP messages of the address's family, which leave from `address`; it receives none. For
    /// ICMPv6 the kernel fills the checksum in (RFC 3542 3.1).
    public static func icmpSocket(from address: IPAddress) throws(SystemError) -> CInt {
        let number = address.family == .v4 ? CInt(IPPROTO_ICMP) : CInt(IPPROTO_ICMPV6)
        let descriptor = try open(address.family, SOCK_RAW, "ICMP", protocolNumber: number)
        // Nothing is read from it, so nothing may pile up in it.
        guard clinux_block_icmp(descriptor) == 0,
            SocketAddress(Endpoint(address, 0)).withPointer({ bind(descriptor, $0, $1) }) == 0
        else {
            let error = SystemError.current("set up", "a socket for ICMP from \(address)")
            close(descriptor)
            throw error
        }
        return descriptor
    }

    private static func bound(to endpoint: Endpoint, type: __socket_type, _ name: String) throws(SystemError) -> CInt {
        let descriptor = try open(endpoint.address.family, type, "\(name) \(endpoint)")
        if type == SOCK_STREAM { setOption(descriptor, SOL_SOCKET, SO_REUSEADDR, CInt(1)) }
        if endpoint.address.family == .v6 { setOption(descriptor, CInt(IPPROTO_IPV6), IPV6_V6ONLY, CInt(1)) }
        guard SocketAddress(endpoint).withPointer({ bind(descriptor, $0, $1) }) == 0 else {
            let error = SystemError.current("bind", "\(name) \(endpoint)")
            close(descriptor)
            throw error
        }
        return descriptor
    }

    /// connect(2) on a socket of the caller's own making, blocking when it blocks: 0, or the error number.
    public static func connect(_ descriptor: CInt, to endpoint: Endpoint) -> CInt {
        SocketAddress(endpoint).withPointer { Glibc.connect(descriptor, $0, $1) } == 0 ? 0 : errno
    }

    /// Begins to connect. The outcome is there when the socket becomes writable: ``takeError(_:)``.
    static func connecting(to endpoint: Endpoint, pass: UpstreamPass? = nil) throws(SystemError) -> CInt {
        let descriptor = try outgoing(endpoint.address.family, isStream: true, pass: pass, "TCP \(endpoint)")
        let (result, code) = retrying { SocketAddress(endpoint).withPointer { Int(Glibc.connect(descriptor, $0, $1)) } }
        if result == 0 || code == EINPROGRESS { return descriptor }
        close(descriptor)
        throw SystemError(operation: "connect", errno: code, context: "\(endpoint)")
    }

    /// A TCP or UDP socket to the outside that is yet to be connected. Where the namespace asks for a `pass` it has one, or
    /// there is none: without, nothing would leave.
    public static func outgoing(
        _ family: IPAddress.Family,
        isStream: Bool,
        pass: UpstreamPass?,
        _ context: @autoclosure () -> String
    ) throws(SystemError) -> CInt {
        let descriptor = try open(family, isStream ? SOCK_STREAM : SOCK_DGRAM, context())
        guard let pass, !hold(descriptor, pass) else { return descriptor }
        let error = SystemError.current("mark", "a socket to the outside")
        close(descriptor)
        throw error
    }

    /// Whether a socket has a pass from now on.
    private static func hold(_ descriptor: CInt, _ pass: UpstreamPass) -> Bool {
        setOption(descriptor, SOL_SOCKET, SO_MARK, pass.mark)
            && setOption(descriptor, SOL_SOCKET, SO_PRIORITY, pass.priority)
    }

    private static func open(
        _ family: IPAddress.Family,
        _ type: __socket_type,
        _ context: @autoclosure () -> String,
        protocolNumber: CInt = 0
    ) throws(SystemError) -> CInt {
        let domain = family == .v4 ? AF_INET : AF_INET6
        let flags = CInt(SOCK_NONBLOCK.rawValue) | CInt(SOCK_CLOEXEC.rawValue)
        let descriptor = socket(domain, CInt(type.rawValue) | flags, protocolNumber)
        if descriptor < 0 { throw .current("open", "a socket for \(context())") }
        return descriptor
    }
}

/// What came of receiving a datagram.
public enum DatagramResult: Hashable, Sendable {
    /// The datagram, which may be empty, and where it comes from.
    case datagram([UInt8], from: Endpoint)
    /// None waits.
    case wouldBlock
    /// An error that waited on the socket, such as an ICMP answer to what was sent before.
    case failed(CInt)
}

extension Sockets {
    /// Takes one datagram; what is longer than `limit` bytes is cut off there.
    public static func receiveDatagram(_ descriptor: CInt, upTo limit: Int) -> DatagramResult {
        withUnsafeTemporaryAllocation(byteCount: limit, alignment: 1) { buffer in
            var address = SocketAddress()
            let (result, code) = retrying {
                address.fill { recvfrom(descriptor, buffer.baseAddress, limit, CInt(MSG_DONTWAIT), $0, $1) }
            }
            guard result >= 0 else { return code == EAGAIN ? .wouldBlock : .failed(code) }
            guard let endpoint = address.endpoint else { return .failed(EAFNOSUPPORT) }
            return .datagram(Array(buffer[..<result]), from: endpoint)
        }
    }

    /// Sends one datagram, whole or not at all.
    public static func sendDatagram(_ descriptor: CInt, _ bytes: [UInt8], to endpoint: Endpoint) -> CountResult {
        bytes.withUnsafeBytes { buffer in
            count(zeroMeansEnd: false) {
                SocketAddress(endpoint).withPointer {
                    sendto(descriptor, buffer.baseAddress, buffer.count, CInt(MSG_DONTWAIT), $0, $1)
                }
            }
        }
    }
}
