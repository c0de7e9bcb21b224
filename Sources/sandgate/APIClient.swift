import Audit
import CLinux
import FoundationEssentials
import Glibc

/// Asks a running daemon over its Unix socket: one request, one answer, one connection.
struct APIClient {
    /// The daemon's socket.
    let socket: String
    /// How long the daemon may be silent, in seconds; as long as it likes if `nil`.
    var patienceSeconds: Int?

    static let defaultSocket = "/run/sandgate/api.sock"

    /// An answer of the daemon's.
    struct Answer {
        let status: Int
        let body: Data
    }

    /// What the daemon says of an error.
    private struct Problem: Decodable {
        struct Detail: Decodable {
            let path: String
            let message: String
        }

        let code: String
        let message: String
        let details: [Detail]?
    }

    /// Sends a request; throws what the daemon says when it refuses.
    func ask(_ method: String, _ target: String, headers: [String: String] = [:], body: [UInt8] = []) throws -> Data {
        let answer = try exchange(method, target, headers, body)
        guard answer.status >= 400 else { return answer.body }
        guard let problem = try? JSONDecoder().decode(Problem.self, from: answer.body) else {
            throw APIRefusal(
                status: answer.status,
                code: "",
                description: "the daemon answered with status \(answer.status)"
            )
        }
        let details = (problem.details ?? []).map { detail in
            "\n  \(detail.path.isEmpty ? "body" : Self.shown(detail.path)): \(Self.shown(detail.message))"
        }
        throw APIRefusal(
            status: answer.status,
            code: problem.code,
            description: Self.shown(problem.message) + details.joined()
        )
    }

    /// What the daemon says, for a terminal: names of programs, devices and tables in it are the choice of whoever made them.
    static func shown(_ message: String) -> String { Printable.text(message, limit: 16_384) }

    /// Whether a daemon listens.
    var canConnect: Bool {
        guard let descriptor = try? connect() else { return false }
        close(descriptor)
        return true
    }

    /// The process that listens; `nil` when none does, or it cannot be told from here.
    var process: Int32? {
        guard let descriptor = try? connect() else { return nil }
        defer { close(descriptor) }
        var peer = clinux_credentials()
        var length = socklen_t(MemoryLayout<clinux_credentials>.size)
        guard getsockopt(descriptor, SOL_SOCKET, SO_PEERCRED, &peer, &length) == 0, peer.process > 0 else { return nil }
        return peer.process
    }

    private func connect() throws -> CInt {
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        let bytes = Array(socket.utf8)
        guard bytes.count < MemoryLayout.size(ofValue: address.sun_path) else {
            throw SetupError("--socket \(socket): longer than a socket's path may be")
        }
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: bytes) }
        let descriptor = Glibc.socket(AF_UNIX, CInt(SOCK_STREAM.rawValue) | CInt(SOCK_CLOEXEC.rawValue), 0)
        guard descriptor >= 0 else { throw SetupError("cannot open a socket: \(String(cString: strerror(errno)))") }
        let status = withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                Glibc.connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
        guard status == 0 else {
            let problem = String(cString: strerror(errno))
            close(descriptor)
            throw SetupError("no daemon at \(socket): \(problem); sandgate serve starts one")
        }
        if let patienceSeconds {
            var patience = timeval(tv_sec: patienceSeconds, tv_usec: 0)
            setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &patience, socklen_t(MemoryLayout<timeval>.size))
        }
        return descriptor
    }

    /// Sends a request, and returns what the answer begins with. The connection becomes the caller's.
    func begin(
        _ method: String,
        _ target: String,
        headers: [String: String] = [:],
        body: [UInt8] = []
    ) throws -> (descriptor: CInt, head: AnswerHead, rest: [UInt8]) {
        let descriptor = try connect()
        do {
            try request(descriptor, method, target, headers, body)
            var answer: [UInt8] = []
            while true {
                if let (head, length) = try AnswerHead.parse(answer) {
                    return (descriptor, head, Array(answer.dropFirst(length)))
                }
                let piece = try receive(descriptor)
                guard !piece.isEmpty else { throw SetupError("what listens at \(socket) does not speak HTTP") }
                answer += piece
            }
        } catch {
            close(descriptor)
            throw error
        }
    }

    /// The answer ends with the connection.
    private func exchange(
        _ method: String,
        _ target: String,
        _ headers: [String: String],
        _ body: [UInt8]
    ) throws -> Answer {
        let (descriptor, head, rest) = try begin(method, target, headers: headers, body: body)
        defer { close(descriptor) }
        var answer = rest
        while case let piece = try receive(descriptor), !piece.isEmpty { answer += piece }
        guard head.isChunked else { return Answer(status: head.status, body: Data(answer)) }
        var chunks = ChunkedBody()
        guard let whole = chunks.take(answer), chunks.hasEnded else {
            throw SetupError("the daemon at \(socket) did not finish its answer")
        }
        return Answer(status: head.status, body: Data(whole))
    }

    private func request(
        _ descriptor: CInt,
        _ method: String,
        _ target: String,
        _ headers: [String: String],
        _ body: [UInt8]
    ) throws {
        let head =
            "\(method) \(target) HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
            + headers.map { "\($0): \($1)\r\n" }.joined()
            + "Content-Length: \(body.count)\r\n\r\n"
        var rest = (Array(head.utf8) + body)[...]
        while !rest.isEmpty {
            let count = rest.withUnsafeBytes { send(descriptor, $0.baseAddress, $0.count, CInt(MSG_NOSIGNAL)) }
            if count < 0, errno == EINTR { continue }
            guard count > 0 else { throw SetupError("cannot write to \(socket): \(String(cString: strerror(errno)))") }
            rest = rest.dropFirst(count)
        }
    }

    /// What has come next; empty at the end.
    private func receive(_ descriptor: CInt) throws -> [UInt8] {
        var chunk = [UInt8](repeating: 0, count: 64 * 1024)
        while true {
            let count = recv(descriptor, &chunk, chunk.count, 0)
            if count < 0, errno == EINTR { continue }
            if count < 0, errno == EAGAIN, let patienceSeconds {
                throw SetupError("the daemon at \(socket) has been silent for \(patienceSeconds) s")
            }
            guard count >= 0 else {
                throw SetupError("cannot read from \(socket): \(String(cString: strerror(errno)))")
            }
            return Array(chunk.prefix(count))
        }
    }
}

/// What a daemon says that does not do what it was asked.
struct APIRefusal: Error, CustomStringConvertible {
    /// The HTTP status, 400 or more.
    let status: Int
    /// A word for programs; empty when there is none.
    let code: String
    /// The message, and below it what is wrong with single fields.
    let description: String

    /// Whether it may do so soon: it begins or ends.
    var isForNow: Bool { status == 503 }
}

/// What stands before the body of an answer.
struct AnswerHead {
    let status: Int
    /// Whether the body is one for ``ChunkedBody``.
    let isChunked: Bool

    /// More than any head of the daemon's.
    private static let longest = 64 * 1024

    /// The head that `bytes` begin with, and its length; `nil` when it is not there in full.
    fileprivate static func parse(_ bytes: [UInt8]) throws -> (AnswerHead, Int)? {
        let separator = Array("\r\n\r\n".utf8)
        guard let end = bytes.indices.first(where: { bytes[$0...].starts(with: separator) }) else {
            guard bytes.count < longest else { throw SetupError("what listens there does not speak HTTP") }
            return nil
        }
        let head = String(decoding: bytes[..<end], as: UTF8.self).lowercased()
        let words = head.prefix { $0 != "\r\n" }.split(separator: " ")
        guard words.count >= 2, words[0].hasPrefix("http/1."), let status = Int(words[1]) else {
            throw SetupError("what listens there does not speak HTTP")
        }
        let isChunked = head.contains("transfer-encoding: chunked")
        return (AnswerHead(status: status, isChunked: isChunked), end + separator.count)
    }
}
