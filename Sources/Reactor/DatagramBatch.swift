internal import CLinux
import Glibc
public import NetPrimitives

/// Room for some datagrams of a socket that is not connected, and for an answer to each, taken and sent with one system
/// call each: `recvmmsg(2)`, `sendmmsg(2)`. Lent to whoever handles an event; what is in it does not outlive the call.
/// Confined to one thread.
public final class DatagramBatch {
    /// The most datagrams at once.
    public static let capacity = Int(CLINUX_DATAGRAMS_MAX)
    /// The longest datagram that is told from a longer one, in bytes. Of a longer one so many bytes are there, and one.
    public static let longestDatagram = 4_096
    /// The longest answer, in bytes: what fits in a frame of Ethernet.
    public static let longestAnswer = 1_500

    private static let roomSize = longestDatagram + 1
    private let datagrams = UnsafeMutablePointer<clinux_datagram>.allocate(capacity: capacity)
    private let answers = UnsafeMutablePointer<clinux_datagram>.allocate(capacity: capacity)
    private let datagramRoom = UnsafeMutableRawPointer.allocate(byteCount: capacity * roomSize, alignment: 16)
    private let answerRoom = UnsafeMutableRawPointer.allocate(byteCount: capacity * longestAnswer, alignment: 16)
    private var answerCount = 0

    /// Empty room. Pages that nothing was written to take no memory.
    public init() {
        datagrams.initialize(repeating: clinux_datagram(), count: Self.capacity)
        answers.initialize(repeating: clinux_datagram(), count: Self.capacity)
    }

    deinit {
        datagrams.deallocate()
        answers.deallocate()
        datagramRoom.deallocate()
        answerRoom.deallocate()
    }

    /// What came of receiving.
    public enum Received: Hashable, Sendable {
        /// So many datagrams, at least one. Fewer than ``DatagramBatch/capacity``: there was no more.
        case datagrams(Int)
        /// None waits.
        case wouldBlock
        /// An error that waited on the socket, such as an ICMP answer to what was sent before.
        case failed(CInt)
    }

    /// Takes the datagrams that wait, instead of those that were in the batch; there are no answers then.
    public func receive(_ descriptor: CInt) -> Received {
        answerCount = 0
        for index in 0..<Self.capacity {
            datagrams[index].bytes = datagramRoom + index * Self.roomSize
            datagrams[index].length = Self.roomSize
        }
        let (result, code) = Sockets.retrying {
            Int(clinux_receive_datagrams(descriptor, datagrams, UInt32(Self.capacity)))
        }
        guard result > 0 else { return code == EAGAIN || result == 0 ? .wouldBlock : .failed(code) }
        return .datagrams(result)
    }

    /// The bytes of a datagram, at most one more than ``longestDatagram``.
    public subscript(index: Int) -> UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(start: datagrams[index].bytes, count: datagrams[index].length)
    }

    /// Where a datagram comes from; `nil` for a family other than IPv4 and IPv6.
    public func source(of index: Int) -> Endpoint? {
        SocketAddress(datagrams[index].address, datagrams[index].address_length).endpoint
    }

    /// Adds an answer to a datagram, at most ``longestAnswer`` bytes and one for each datagram; `adjust` may change the copy.
    public func answer(_ index: Int, with bytes: [UInt8], _ adjust: (UnsafeMutableRawBufferPointer) -> Void = { _ in })
    {
        adjust(append(bytes))
        answers[answerCount].address = datagrams[index].address
        answers[answerCount].address_length = datagrams[index].address_length
        answerCount += 1
    }

    private func append(_ bytes: [UInt8]) -> UnsafeMutableRawBufferPointer {
        precondition(bytes.count <= Self.longestAnswer && answerCount < Self.capacity, "the answer has no room")
        let room = UnsafeMutableRawBufferPointer(
            start: answerRoom + answerCount * Self.longestAnswer,
            count: bytes.count
        )
        room.copyBytes(from: bytes)
        answers[answerCount].bytes = room.baseAddress
        answers[answerCount].length = bytes.count
        return room
    }

    /// Sends answers to datagrams that are no longer here, of at most ``longestAnswer`` bytes each.
    public func send(_ messages: [(bytes: [UInt8], destination: Endpoint)], from descriptor: CInt) {
        for (bytes, destination) in messages {
            if answerCount == Self.capacity { sendAnswers(descriptor) }
            _ = append(bytes)
            (answers[answerCount].address, answers[answerCount].address_length) = SocketAddress(destination).parts
            answerCount += 1
        }
        sendAnswers(descriptor)
    }

    /// Sends the answers. What the kernel has no room for, or will not send, is lost as datagrams are.
    public func sendAnswers(_ descriptor: CInt) {
        var sent = 0
        while sent < answerCount {
            let (result, code) = Sockets.retrying {
                Int(clinux_send_datagrams(descriptor, answers + sent, UInt32(answerCount - sent)))
            }
            guard code != EAGAIN else { break }
            // An error is that of the first one.
            sent += max(result, 1)
        }
        answerCount = 0
    }
}
