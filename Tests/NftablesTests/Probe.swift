import CLinux
import Glibc
import NetPrimitives
import Reactor

/// What a program in the sandbox does, by the socket calls it would make.
enum Probe {
    /// Connects and returns the socket, or the error after at most `milliseconds` (ETIMEDOUT then).
    static func connect(
        _ destination: Endpoint,
        from device: String? = nil,
        milliseconds: CInt = 1_000
    ) -> Result<CInt, Errno> {
        let descriptor = open(destination.address.family, SOCK_STREAM.rawValue, device)
        if withAddress(destination, { Glibc.connect(descriptor, $0, $1) }) == 0 { return .success(descriptor) }
        var error = errno
        if error == EINPROGRESS {
            var poller = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
            if poll(&poller, 1, milliseconds) == 1 {
                var length = socklen_t(MemoryLayout<CInt>.size)
                getsockopt(descriptor, SOL_SOCKET, SO_ERROR, &error, &length)
            } else {
                error = ETIMEDOUT
            }
        }
        if error == 0 { return .success(descriptor) }
        close(descriptor)
        return .failure(Errno(code: error))
    }

    /// Connects, and says how that failed; 0 when it did not.
    static func connectError(_ destination: Endpoint, from device: String? = nil, milliseconds: CInt = 1_000) -> CInt {
        switch connect(destination, from: device, milliseconds: milliseconds) {
        case .success(let descriptor):
            close(descriptor)
            return 0
        case .failure(let error): return error.code
        }
    }

    /// Sends a datagram, and says how that failed; 0 when it did not.
    static func send(_ destination: Endpoint, _ bytes: [UInt8] = [1, 2, 3], from device: String? = nil) -> CInt {
        send(destination, open(destination.address.family, SOCK_DGRAM.rawValue, device), bytes)
    }

    /// Sends a packet of another protocol with a raw socket; `hops` is its hop limit to a group.
    static func send(_ destination: IPAddress, protocolNumber: CInt, _ bytes: [UInt8], hops: CInt = 64) -> CInt {
        let family = destination.family == .v4 ? AF_INET : AF_INET6
        let descriptor = socket(family, CInt(SOCK_RAW.rawValue), protocolNumber)
        if destination.family == .v6 {
            for (option, value) in [
                (IPV6_UNICAST_HOPS, hops), (IPV6_MULTICAST_HOPS, hops),
                (IPV6_MULTICAST_IF, CInt(if_nametoindex("eth0"))),
            ] {
                var value = value
                setsockopt(descriptor, CInt(IPPROTO_IPV6), option, &value, socklen_t(MemoryLayout<CInt>.size))
            }
        }
        return send(Endpoint(destination, 0), descriptor, bytes)
    }

    /// Asks `destination` by UDP and returns what it answers within a second.
    static func ask(_ destination: Endpoint, _ question: [UInt8], _ answer: () -> Void) -> [UInt8]? {
        let descriptor = open(destination.address.family, SOCK_DGRAM.rawValue, nil)
        defer { close(descriptor) }
        // Connected, it takes answers from no one else.
        guard withAddress(destination, { Glibc.connect(descriptor, $0, $1) }) == 0 else { return nil }
        guard case .bytes = Sockets.send(descriptor, question[...]) else { return nil }
        answer()
        guard isReadable(descriptor, milliseconds: 1_000) else { return nil }
        guard case .bytes(let bytes) = Sockets.receive(descriptor, upTo: 512) else { return nil }
        return bytes
    }

    /// Whether something can be read within `milliseconds`.
    static func isReadable(_ descriptor: CInt, milliseconds: CInt) -> Bool {
        var poller = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
        return poll(&poller, 1, milliseconds) == 1
    }

    /// The next connection of a listener and where it was first meant to go.
    static func accept(_ listener: CInt) -> (descriptor: CInt, destination: Endpoint?)? {
        guard isReadable(listener, milliseconds: 1_000),
            case .accepted(let descriptor, let peer) = Sockets.accept(listener)
        else { return nil }
        return (descriptor, Sockets.originalDestination(descriptor, peer.address.family))
    }

    private static func open(_ family: IPAddress.Family, _ type: UInt32, _ device: String?) -> CInt {
        let descriptor = socket(
            family == .v4 ? AF_INET : AF_INET6,
            CInt(type | SOCK_NONBLOCK.rawValue | SOCK_CLOEXEC.rawValue),
            0
        )
        if let device {
            let status = setsockopt(descriptor, SOL_SOCKET, SO_BINDTODEVICE, device, socklen_t(device.utf8.count + 1))
            precondition(status == 0, "cannot bind to \(device)")
        }
        return descriptor
    }

    private static func send(_ destination: Endpoint, _ descriptor: CInt, _ bytes: [UInt8]) -> CInt {
        defer { close(descriptor) }
        let count = withAddress(destination) { address, length in
            bytes.withUnsafeBytes { sendto(descriptor, $0.baseAddress, $0.count, 0, address, length) }
        }
        return count < 0 ? errno : 0
    }

    private static func withAddress<Result>(
        _ endpoint: Endpoint,
        _ body: (UnsafePointer<sockaddr>, socklen_t) -> Result
    ) -> Result {
        var storage = sockaddr_storage()
        let bytes = endpoint.address.networkBytes
        let port = [UInt8(endpoint.port >> 8), UInt8(truncatingIfNeeded: endpoint.port)]
        let isIPv4 = endpoint.address.family == .v4
        storage.ss_family = sa_family_t(isIPv4 ? AF_INET : AF_INET6)
        return withUnsafeMutablePointer(to: &storage) { pointer in
            let raw = UnsafeMutableRawPointer(pointer)
            // The port follows the family, the address the port; in IPv6 with the flow label between them.
            (raw + 2).copyMemory(from: port, byteCount: 2)
            (raw + (isIPv4 ? 4 : 8)).copyMemory(from: bytes, byteCount: bytes.count)
            let length = isIPv4 ? MemoryLayout<sockaddr_in>.size : MemoryLayout<sockaddr_in6>.size
            return body(raw.assumingMemoryBound(to: sockaddr.self), socklen_t(length))
        }
    }
}

/// An error number as an error.
struct Errno: Error, Equatable {
    let code: CInt
}
