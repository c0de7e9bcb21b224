internal import CLinux
import Glibc
public import NetPrimitives

/// What came of reading bytes.
public enum IOResult: Hashable, Sendable {
    /// At least one byte.
    case bytes([UInt8])
    /// Nothing now.
    case wouldBlock
    /// The peer has ended the stream.
    case ended
    /// The connection is broken; the error number.
    case failed(CInt)
}

/// What came of moving bytes.
public enum CountResult: Hashable, Sendable {
    /// So many, at least one.
    case bytes(Int)
    /// None now.
    case wouldBlock
    /// The peer has ended the stream.
    case ended
    /// The connection is broken; the error number.
    case failed(CInt)
}

/// What came of accepting a connection.
public enum AcceptResult: Hashable, Sendable {
    /// A non-blocking, close-on-exec socket, now the caller's, and where it comes from.
    case accepted(CInt, Endpoint)
    /// None waits.
    case wouldBlock
    /// It cannot be accepted; the error number. EMFILE and ENFILE leave the connection waiting.
    case failed(CInt)
}

/// The socket calls, all in one place. Every descriptor is non-blocking and stays the caller's unless said otherwise.
/// Calls that a signal interrupted are made again, would-block is a value, and what only a bug here can cause (a closed
/// descriptor, a bad address) traps.
public enum Sockets {
    /// Makes `call` until no signal interrupts it.
    @inline(__always)
    static func retrying(_ call: () -> Int) -> (result: Int, errno: CInt) {
        while true {
            let result = call()
            if result >= 0 { return (result, 0) }
            let code = Glibc.errno
            if code == EINTR { continue }
            precondition(code != EBADF && code != EFAULT && code != ENOTSOCK, "a socket call on what is none")
            return (result, code)
        }
    }

    @inline(__always)
    static func count(zeroMeansEnd: Bool = true, _ call: () -> Int) -> CountResult {
        let (result, code) = retrying(call)
        if result > 0 { return .bytes(result) }
        if result == 0 { return zeroMeansEnd ? .ended : .bytes(0) }
        return code == EAGAIN ? .wouldBlock : .failed(code)
    }
}

// MARK: - Streams

extension Sockets {
    /// The first bytes that wait, left where they are. Bytes after an out-of-band mark are not shown.
    public static func peek(_ descriptor: CInt, upTo limit: Int) -> IOResult {
        read(descriptor, upTo: limit, flags: CInt(MSG_PEEK))
    }

    /// ``peek(_:upTo:)`` through memory that is there already: borrowing tens of KiB for each connection's first bytes has the
    /// allocator tidy up every time.
    public static func peek(_ descriptor: CInt, upTo limit: Int, lentBy loop: EventLoop) -> IOResult {
        let buffer = UnsafeMutableRawBufferPointer(rebasing: loop.scratch.prefix(limit))
        let flags = CInt(MSG_PEEK) | CInt(MSG_DONTWAIT)
        switch count({ recv(descriptor, buffer.baseAddress, buffer.count, flags) }) {
        case .bytes(let count): return .bytes(Array(buffer[..<count]))
        case .wouldBlock: return .wouldBlock
        case .ended: return .ended
        case .failed(let code): return .failed(code)
        }
    }

    /// Takes up to `limit` bytes.
    public static func receive(_ descriptor: CInt, upTo limit: Int) -> IOResult {
        read(descriptor, upTo: limit, flags: 0)
    }

    private static func read(_ descriptor: CInt, upTo limit: Int, flags: CInt) -> IOResult {
        precondition(limit > 0, "reading nothing cannot be told from an end")
        // Into borrowed room first, so that the array is as large as what came and not as what could have come.
        return withUnsafeTemporaryAllocation(byteCount: limit, alignment: 1) { buffer in
            switch count({ recv(descriptor, buffer.baseAddress, limit, flags | CInt(MSG_DONTWAIT)) }) {
            case .bytes(let count): .bytes(Array(buffer[..<count]))
            case .wouldBlock: .wouldBlock
            case .ended: .ended
            case .failed(let code): .failed(code)
            }
        }
    }

    /// Sends as many of `bytes`, which must not be empty, as the kernel takes.
    public static func send(_ descriptor: CInt, _ bytes: ArraySlice<UInt8>) -> CountResult {
        bytes.withUnsafeBytes { send(descriptor, $0) }
    }

    static func send(_ descriptor: CInt, _ buffer: UnsafeRawBufferPointer) -> CountResult {
        precondition(!buffer.isEmpty, "nothing to send")
        let flags = CInt(MSG_NOSIGNAL) | CInt(MSG_DONTWAIT)
        return count { Glibc.send(descriptor, buffer.baseAddress, buffer.count, flags) }
    }

    static func receive(_ descriptor: CInt, into buffer: UnsafeMutableRawBufferPointer) -> CountResult {
        count { recv(descriptor, buffer.baseAddress, buffer.count, CInt(MSG_DONTWAIT)) }
    }

    /// Throws away what waits on a TCP socket, up to 64 KiB, without copying it (`MSG_TRUNC`, tcp(7)).
    public static func discard(_ descriptor: CInt) -> CountResult {
        discard(descriptor, upTo: 64 * 1024)
    }

    private static func discard(_ descriptor: CInt, upTo limit: Int) -> CountResult {
        count { recv(descriptor, nil, limit, CInt(MSG_TRUNC) | CInt(MSG_DONTWAIT)) }
    }

    /// Throws away exactly `count` bytes that were peeked at on a TCP socket. Whether they were there.
    public static func take(_ descriptor: CInt, exactly count: Int) -> Bool {
        var remaining = count
        while remaining > 0 {
            guard case .bytes(let taken) = discard(descriptor, upTo: remaining) else { return false }
            remaining -= taken
        }
        return true
    }

    /// Takes from one TCP socket into a pipe, or from a pipe into a TCP socket. The thread must have SIGPIPE blocked.
    static func splice(from source: CInt, to sink: CInt, upTo limit: Int) -> CountResult {
        count { clinux_splice(source, sink, limit) }
    }

    /// Ends our direction of the stream; what was sent before still arrives.
    public static func endOutput(_ descriptor: CInt) {
        // ENOTCONN: the peer has reset the connection meanwhile, and the next read says so.
        _ = shutdown(descriptor, CInt(SHUT_WR))
    }

    /// Says to the peer that nothing more will come, and takes nothing more from it: what closing the socket does, but that
    /// it can still be asked what has become of it, and be reset.
    public static func end(_ descriptor: CInt) {
        _ = shutdown(descriptor, CInt(SHUT_RDWR))
    }

    /// How many bytes the peer has not acknowledged, the end of the stream counted as one; 0 when the connection is gone.
    public static func unsentBytes(_ descriptor: CInt) -> Int {
        max(Int(clinux_unsent_bytes(descriptor)), 0)
    }

    /// Closes the descriptor. Does not retry: Linux has released it even when it reports an error.
    public static func close(_ descriptor: CInt) {
        precondition(Glibc.close(descriptor) == 0 || errno != EBADF, "a descriptor was closed twice")
    }

    /// Closes a TCP socket so that the peer sees a reset, and what was not delivered is dropped.
    public static func reset(_ descriptor: CInt) {
        setAbortive(descriptor, true)
        close(descriptor)
    }

    /// Closes a TCP socket in order: the kernel delivers what is left, and the end of the stream behind it.
    public static func closeInOrder(_ descriptor: CInt) {
        setAbortive(descriptor, false)
        close(descriptor)
    }

    /// Whether the peer sees a reset when the socket is closed, and what was not delivered is dropped: also by the end of the
    /// process, however it comes (SO_LINGER without a time, socket(7)).
    public static func setAbortive(_ descriptor: CInt, _ isAbortive: Bool) {
        setOption(descriptor, SOL_SOCKET, SO_LINGER, linger(l_onoff: isAbortive ? 1 : 0, l_linger: 0))
    }
}

// MARK: - Options

extension Sockets {
    /// Has the descriptor reported readable only when `count` bytes wait, or the stream ended or broke (SO_RCVLOWAT).
    public static func setReceiveLowWater(_ descriptor: CInt, _ count: Int) {
        setOption(descriptor, SOL_SOCKET, SO_RCVLOWAT, CInt(clamping: count))
    }

    /// Sends small segments at once (TCP_NODELAY): a relay must not add Nagle's delay to what the ends chose.
    public static func setNoDelay(_ descriptor: CInt) {
        setOption(descriptor, CInt(IPPROTO_TCP), TCP_NODELAY, CInt(1))
    }

    /// Options that cannot make a difference to a broken connection are not checked.
    @discardableResult
    static func setOption<Value>(_ descriptor: CInt, _ level: CInt, _ name: CInt, _ value: Value) -> Bool {
        withUnsafeBytes(of: value) { bytes in
            retrying { Int(setsockopt(descriptor, level, name, bytes.baseAddress, socklen_t(bytes.count))) }.result == 0
        }
    }

    /// Takes the error that waits on the socket; 0 for none (SO_ERROR).
    static func takeError(_ descriptor: CInt) -> CInt {
        var code: CInt = 0
        var length = socklen_t(MemoryLayout<CInt>.size)
        let outcome = retrying { Int(getsockopt(descriptor, SOL_SOCKET, SO_ERROR, &code, &length)) }
        return outcome.result == 0 ? code : outcome.errno
    }
}

// MARK: - Addresses

extension Sockets {
    /// Where the connection's other end is; `nil` when it is broken.
    public static func peerEndpoint(_ descriptor: CInt) -> Endpoint? {
        address { getpeername(descriptor, $0, $1) }
    }

    /// Where the socket is bound.
    public static func localEndpoint(_ descriptor: CInt) -> Endpoint? {
        address { getsockname(descriptor, $0, $1) }
    }

    /// Where a redirected TCP connection was going before nat changed it; `nil` when it was not redirected.
    /// `family` is that of the listener.
    public static func originalDestination(_ descriptor: CInt, _ family: IPAddress.Family) -> Endpoint? {
        let (level, name) =
            family == .v4
            ? (CInt(SOL_IP), clinux_so_original_dst) : (CInt(SOL_IPV6), clinux_ip6t_so_original_dst)
        return address { getsockopt(descriptor, level, name, $0, $1) }
    }

    private static func address(
        _ call: (UnsafeMutablePointer<sockaddr>, UnsafeMutablePointer<socklen_t>) -> CInt
    ) -> Endpoint? {
        var address = SocketAddress()
        return retrying { address.fill { Int(call($0, $1)) } }.result == 0 ? address.endpoint : nil
    }
}
