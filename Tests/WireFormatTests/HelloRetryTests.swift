import NetPrimitives
import Testing

@testable import WireFormat

@Suite struct HelloRetryTests {
    /// A ServerHello with this random, in records of at most `size` bytes.
    private static func serverHello(_ random: [UInt8], type: UInt8 = 2, of size: Int = 16384) -> [UInt8] {
        let body = [3, 3] + random + [0, 0x13, 0x01, 0, 0, 0]
        let message = [type] + HelloBuilder.vector24(body)
        return stride(from: 0, to: message.count, by: size).flatMap {
            HelloBuilder.record(Array(message[$0..<min($0 + size, message.count)]), version: 0x0303)
        }
    }

    private static let retry = serverHello(HelloRetryDetector.random)
    private static let warning = HelloBuilder.record([1, 112], type: 21, version: 0x0303)

    /// What is said of the bytes in one go, and byte by byte.
    private func outcome(_ bytes: [UInt8]) -> HelloRetryDetector.Outcome {
        var whole = HelloRetryDetector()
        let expected = bytes.withUnsafeBytes { whole.look(at: $0) }
        var divided = HelloRetryDetector()
        var found = HelloRetryDetector.Outcome.needMore
        for byte in bytes where found == .needMore { found = withUnsafeBytes(of: byte) { divided.look(at: $0) } }
        #expect(found == expected)
        return expected
    }

    @Test(arguments: [16384, 38, 20, 1]) func aRetryIsSeenOverAnyRecords(size: Int) {
        #expect(outcome(Self.serverHello(HelloRetryDetector.random, of: size)) == .retry)
        #expect(outcome(Self.warning + Self.serverHello(HelloRetryDetector.random, of: size)) == .retry)
    }

    @Test func anythingElseIsNone() {
        var random = HelloRetryDetector.random
        random[31] ^= 1
        #expect(outcome(Self.serverHello(random)) == .other)
        #expect(outcome(Self.serverHello([UInt8](repeating: 7, count: 32))) == .other)
        #expect(outcome(Self.serverHello(HelloRetryDetector.random, type: 1)) == .other)
        #expect(outcome(Array("220 mail.example\r\n".utf8)) == .other)
        #expect(outcome([22, 3, 3, 0, 0]) == .other)
        #expect(outcome([22, 2, 3]) == .other)
    }

    @Test func untilItIsWholeNothingIsSaid() {
        let decided = Self.retry.count - 6
        for count in 0..<decided { #expect(outcome(Array(Self.retry.prefix(count))) == .needMore) }
        #expect(outcome(Array(Self.retry.prefix(decided))) == .retry)
        #expect(outcome(Self.warning) == .needMore)
    }

    // What the client says then

    private static let hello = HelloBuilder(serverName: "a.example").records()
    private static let change = HelloBuilder.record([1], type: 20, version: 0x0303)
    private static let early = HelloBuilder.record([UInt8](repeating: 9, count: 300), type: 23, version: 0x0303)

    @Test func theHelloIsFoundBehindWhatMayComeBefore() throws {
        guard case .hello(let hello) = SecondHello.examine(Self.hello + [1, 2, 3]) else { throw Missing() }
        #expect(hello.serverName == .name(try .init("a.example")))
        #expect(hello.length == Self.hello.count)
        #expect(SecondHello.examine(Self.early + Self.change + Self.hello) == .passes(Self.early.count + 6))
        #expect(SecondHello.examine(Self.change) == .passes(6))
    }

    @Test func whatIsWholePassesBeforeTheRestIsWaitedFor() {
        let stream = Self.change + Self.early
        for count in 6..<stream.count { #expect(SecondHello.examine(Array(stream.prefix(count))) == .passes(6)) }
        #expect(SecondHello.examine(Array(Self.early.prefix(4))) == .needMore(5))
        #expect(SecondHello.examine(Array(Self.early.prefix(100))) == .needMore(305))
        #expect(SecondHello.examine([]) == .needMore(1))
        for count in 1..<Self.hello.count {
            guard case .needMore(let wanted) = SecondHello.examine(Array(Self.hello.prefix(count))) else {
                Issue.record("\(count) bytes are enough")
                continue
            }
            #expect(wanted > count)
        }
    }

    @Test(
        arguments: [
            [24, 3, 3, 0, 1, 0], Array("GET / HTTP/1.1\r\n".utf8), [20, 2, 3, 0, 1, 1], [23, 3, 3, 0, 0],
            [23, 3, 3, 0x42, 0],
            [22, 3, 3, 0, 4, 16, 0, 0, 0], [22, 3, 3, 0, 1, 1, 20, 3, 3, 0, 1, 1],
        ] as [[UInt8]]
    )
    func anythingElseIsMalformed(bytes: [UInt8]) throws {
        guard case .malformed = SecondHello.examine(bytes) else { throw Missing() }
    }

    private struct Missing: Error {}
}
