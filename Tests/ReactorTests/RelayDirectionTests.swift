import Glibc
import NetPrimitives
import Synchronization
import Testing

@testable import Reactor

@Suite struct RelayDirectionTests {
    /// With a sender and a reader that are always ready, one turn is still bounded: others are served in between.
    @Test func oneTurnMovesNoMoreThanItsBudget() throws {
        let loop = try EventLoop()
        let (sender, source) = try tcpPair()
        let (sink, reader) = try tcpPair()
        let isOver = Atomic(false)
        let block = [UInt8](repeating: 1, count: 1 << 20)
        try withThreads(
            {
                while !isOver.load(ordering: .relaxed) {
                    if case .failed = Sockets.send(sender, block[...]) { return }
                }
            },
            {
                while !isOver.load(ordering: .relaxed) {
                    if case .failed = Sockets.receive(reader, upTo: 1 << 20) { return }
                }
            }
        ) {
            defer { isOver.store(true, ordering: .relaxed) }
            var direction = RelayDirection(from: source, to: sink, initial: [])
            defer { direction.drop(to: loop.pipes) }
            var turns = 0
            while direction.delivered < 256 << 20 {
                let before = direction.delivered
                direction.sourceChanged(.readable)
                direction.sinkChanged(.writable)
                switch direction.pump(loop) {
                case .waits, .budgetSpent: break
                default: throw Problem("the relay ended")
                }
                turns += 1
                // The budget, and what the pipe still held.
                try #require(direction.delivered - before <= 3 << 20)
            }
            #expect(turns >= 85)
        }
        [sender, source, sink, reader].forEach(Sockets.close)
    }

    private func withThreads(
        _ first: @escaping @Sendable () -> Void,
        _ second: @escaping @Sendable () -> Void,
        _ body: () throws -> Void
    ) throws {
        let threads = [TestThread(first), TestThread(second)]
        defer { threads.forEach { $0.join() } }
        try body()
    }
}
