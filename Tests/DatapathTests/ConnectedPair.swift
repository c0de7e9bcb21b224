import Glibc
import NetPrimitives
import Reactor
import Testing

/// Both ends of a TCP connection over loopback, ours non-blocking, the peer's blocking. About `receiveBytes` may wait in ours.
func connectedPair(receiveBytes: Int? = nil) throws -> (ours: CInt, peer: CInt) {
    let listener = try Sockets.tcpListener(Endpoint(IPAddress("127.0.0.1")!, 0))
    defer { Sockets.close(listener) }
    // The window that a connection may ever open is settled when it begins.
    if let receiveBytes { Sockets.setReceiveBuffer(listener, bytes: receiveBytes) }
    let peer = socket(AF_INET, CInt(SOCK_STREAM.rawValue), 0)
    #expect(Sockets.connect(peer, to: try #require(Sockets.localEndpoint(listener))) == 0)
    guard case .accepted(let ours, _) = Sockets.accept(listener) else {
        Issue.record("nobody connected")
        throw CancellationError()
    }
    return (ours, peer)
}
