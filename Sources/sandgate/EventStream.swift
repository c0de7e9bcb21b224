import CLinux
import Glibc

/// Server-sent events of a running daemon, as they come: HTML standard, 9.2. Of their fields, only `data` means something here.
final class EventStream {
    /// What is to be read when it is readable.
    let descriptor: CInt

    private let socket: String
    private var body = ChunkedBody()
    private var unread: [UInt8] = []

    /// More than any line of an event: a record has 8 KiB at most.
    private static let longestLine = 1 << 20

    /// Asks, and returns when the daemon has said that events come from now on.
    init(_ client: APIClient, _ target: String) throws {
        socket = client.socket
        let (descriptor, head, rest) = try client.begin("GET", target)
        self.descriptor = descriptor
        guard head.status == 200, head.isChunked else {
            throw SetupError("the daemon at \(socket) answered with status \(head.status) to \(target)")
        }
        try take(rest)
        // The daemon's first line says that it listens; it is a comment.
        while unread.isEmpty { try receive(waiting: true) }
    }

    deinit { close(descriptor) }

    /// The data of the events that have come. Throws when the daemon has ended, or there is nothing like a stream any more.
    func read() throws -> [[UInt8]] {
        while try receive(waiting: false) {}
        var events: [[UInt8]] = []
        var begin = unread.startIndex
        let prefix = Array("data: ".utf8)
        while let end = unread[begin...].firstIndex(of: UInt8(ascii: "\n")) {
            let line = unread[begin..<end]
            if line.starts(with: prefix) { events.append(Array(line.dropFirst(prefix.count))) }
            begin = end + 1
        }
        unread.removeFirst(begin)
        guard unread.count < Self.longestLine else { throw SetupError("the daemon at \(socket) sends no events") }
        return events
    }

    /// Takes a piece; `false` when there is none.
    @discardableResult
    private func receive(waiting: Bool) throws -> Bool {
        var piece = [UInt8](repeating: 0, count: 64 * 1024)
        let count = recv(descriptor, &piece, piece.count, waiting ? 0 : CInt(MSG_DONTWAIT))
        if count < 0, errno == EINTR { return true }
        if count < 0, errno == EAGAIN {
            guard waiting else { return false }
            throw SetupError("the daemon at \(socket) does not say that it listens")
        }
        guard count > 0 else { throw SetupError("the daemon at \(socket) has ended") }
        try take(piece.prefix(count))
        return true
    }

    private func take(_ piece: some Sequence<UInt8>) throws {
        guard let bytes = body.take(piece), !body.hasEnded else {
            throw SetupError("the daemon at \(socket) has ended")
        }
        unread += bytes
    }
}
