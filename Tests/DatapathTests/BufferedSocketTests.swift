import CLinux
import Glibc
import NetPrimitives
import Reactor
import Testing

@testable import Datapath

@Suite(.timeLimit(.minutes(1))) struct BufferedSocketTests {
    /// Both ends of a TCP connection over loopback, ours non-blocking, the peer's blocking.
    private func pair() throws -> (ours: CInt, peer: CInt) {
        let listener = try Sockets.tcpListener(Endpoint(IPAddress("127.0.0.1")!, 0))
        defer { Sockets.close(listener) }
        let peer = socket(AF_INET, CInt(SOCK_STREAM.rawValue), 0)
        #expect(Sockets.connect(peer, to: try #require(Sockets.localEndpoint(listener))) == 0)
        guard case .accepted(let ours, _) = Sockets.accept(listener) else {
            Issue.record("nobody connected")
            throw CancellationError()
        }
        return (ours, peer)
    }

    private func read(_ descriptor: CInt, _ count: Int) -> Int {
        var bytes = [UInt8](repeating: 0, count: count)
        return recv(descriptor, &bytes, count, 0)
    }

    @Test func keepsNothingThatWasSent() throws {
        let loop = try EventLoop()
        let (ours, peer) = try pair()
        var size: CInt = 4_096
        setsockopt(ours, SOL_SOCKET, SO_SNDBUF, &size, socklen_t(MemoryLayout<CInt>.size))
        let socket = try BufferedSocket(ours, loop: loop)
        defer {
            socket.close(abortively: true)
            close(peer)
        }
        // Fill the kernel's buffers, and then always leave something behind.
        func fill() {
            while socket.pendingOutput < 10_000 { socket.send([UInt8](repeating: 1, count: 10_000)) }
        }
        fill()
        var largest = 0
        var taken = 0
        while taken < 20_000_000 {
            taken += read(peer, 20_000)
            socket.handle(.writable)
            fill()
            largest = max(largest, socket.keptOutput)
        }
        #expect(largest < 3 * BufferedSocket.outputLimit)
    }

    @Test(arguments: [false, true]) func readsWhatWasSaidBeforeTheBreak(inOrder: Bool) throws {
        let loop = try EventLoop()
        let (ours, peer) = try pair()
        let socket = try BufferedSocket(ours, loop: loop)
        defer { socket.close() }
        socket.send([1, 2, 3])
        #expect(send(peer, "no", 2, 0) == 2)
        // Closed with unread input: the connection is reset, and what comes next finds it so.
        if inOrder { shutdown(peer, CInt(SHUT_WR)) }
        close(peer)
        var state = pollfd(fd: ours, events: 0, revents: 0)
        while state.revents & Int16(POLLHUP) == 0 { poll(&state, 1, 1_000) }
        while !socket.isOutputBroken { socket.send([4]) }
        #expect(socket.takeInput() == Array("no".utf8))
        // A reset must not look like an end, nor an end like a reset.
        socket.fill()
        #expect(socket.hasEnded == inOrder)
        #expect(socket.isBroken == !inOrder)
    }
}
