import CLinux
import Glibc
import Reactor
import Testing

@testable import Datapath

@Suite(.timeLimit(.minutes(1))) struct FarewellTests {
    /// How many bytes wait to be read.
    private func waiting(_ descriptor: CInt) -> Int {
        var count: CInt = 0
        return ioctl(descriptor, UInt(FIONREAD), &count) == 0 ? Int(count) : 0
    }

    /// Sends until the kernel takes no more.
    private func fill(_ descriptor: CInt) {
        let bytes = [UInt8](repeating: 1, count: 64 * 1024)
        var state = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
        repeat {
            while send(descriptor, bytes, bytes.count, CInt(MSG_DONTWAIT)) > 0 {}
        } while poll(&state, 1, 200) > 0
    }

    /// What a client sends that goes on sending is thrown away a part at a time: others on the loop want their turn.
    @Test func whoGoesOnSendingDoesNotKeepTheLoop() throws {
        let loop = try EventLoop()
        let (ours, peer) = try connectedPair(receiveBytes: 16 << 20)
        defer { close(peer) }
        fill(peer)
        let before = waiting(ours)
        try #require(before > 4 << 20, "without CAP_NET_ADMIN no so large a buffer is granted")
        let farewell = Farewell(loop: loop, descriptor: ours, bytes: Array("no".utf8))
        var hasEnded = false
        farewell.start {
            hasEnded = true
            loop.stop()
        }
        #expect(waiting(ours) > before / 2)
        shutdown(peer, CInt(SHUT_WR))
        try loop.run()
        #expect(hasEnded)
        var answer = [UInt8](repeating: 0, count: 8)
        #expect(recv(peer, &answer, answer.count, 0) == 2)
    }
}
