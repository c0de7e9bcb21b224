import CLinux
import Glibc
import NetPrimitives
import Reactor
import Testing

@testable import Datapath

@Suite(.timeLimit(.minutes(1))) struct BufferedSocketTests {
    private func read(_ descriptor: CInt, _ count: Int) -> Int {
        var bytes = [UInt8](repeating: 0, count: count)
        return recv(descriptor, &bytes, count, 0)
    }

    @Test func keepsNothingThatWasSent() throws {
        let loop = try EventLoop()
        let (ours, peer) = try connectedPair()
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
        let (ours, peer) = try connectedPair()
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
