import Glibc
public import NetPrimitives

/// Room for one datagram of any size, lent to whoever relays: nothing is allocated for a datagram on its way. Confined
/// to one thread.
public final class DatagramBuffer {
    private let storage: UnsafeMutableRawBufferPointer
    /// How many bytes the last datagram has that was received.
    public private(set) var count = 0

    /// No datagram is longer: RFC 768 and RFC 8200 count its length in 16 bits.
    private static let size = 65_535

    /// An empty buffer.
    public init() {
        storage = .allocate(byteCount: Self.size, alignment: 16)
    }

    deinit {
        storage.deallocate()
    }

    /// What came of receiving into the buffer.
    public enum Received: Hashable, Sendable {
        /// A datagram, and where it comes from.
        case datagram(from: Endpoint)
        /// None waits.
        case wouldBlock
        /// An error that waited on the socket, such as an ICMP answer to what was sent before.
        case failed(CInt)
    }

    /// Takes one datagram of a socket that is not connected.
    public func receive(_ descriptor: CInt) -> Received {
        var address = SocketAddress()
        let (result, code) = Sockets.retrying {
            address.fill { recvfrom(descriptor, storage.baseAddress, storage.count, CInt(MSG_DONTWAIT), $0, $1) }
        }
        guard result >= 0 else { return code == EAGAIN ? .wouldBlock : .failed(code) }
        count = result
        guard let endpoint = address.endpoint else { return .failed(EAFNOSUPPORT) }
        return .datagram(from: endpoint)
    }

    /// Takes one datagram of a connected socket; `.bytes` with their number, which may be 0.
    public func receiveConnected(_ descriptor: CInt) -> CountResult {
        let result = Sockets.count(zeroMeansEnd: false) {
            recv(descriptor, storage.baseAddress, storage.count, CInt(MSG_DONTWAIT))
        }
        if case .bytes(let length) = result { count = length }
        return result
    }

    /// Sends the datagram that was received last on a connected socket, whole or not at all.
    public func sendConnected(_ descriptor: CInt) -> CountResult {
        Sockets.count(zeroMeansEnd: false) {
            send(descriptor, storage.baseAddress, count, CInt(MSG_DONTWAIT) | CInt(MSG_NOSIGNAL))
        }
    }

    /// Sends the datagram that was received last to `endpoint`, whole or not at all.
    public func send(_ descriptor: CInt, to endpoint: Endpoint) -> CountResult {
        Sockets.count(zeroMeansEnd: false) {
            SocketAddress(endpoint).withPointer {
                sendto(descriptor, storage.baseAddress, count, CInt(MSG_DONTWAIT), $0, $1)
            }
        }
    }

    private func send(_ descriptor: CInt, _ base: UnsafeMutableRawPointer?, _ count: Int, _ flags: CInt) -> Int {
        Glibc.send(descriptor, base, count, flags)
    }
}
