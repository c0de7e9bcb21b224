import CLinux
import FoundationEssentials
import Glibc

/// Asks a running daemon over its Unix socket: one request, one answer, one connection.
struct APIClient {
    /// The daemon's socket.
    let socket: String

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

        let message: String
        let details: [Detail]?
    }

    /// Sends a request; throws what the daemon says when it refuses.
    func ask(_ method: String, _ target: String, headers: [String: String] = [:], body: [UInt8] = []) throws -> Data {
        let answer = try exchange(method, target, headers, body)
        guard answer.status >= 400 else { return answer.body }
        guard let problem = try? JSONDecoder().decode(Problem.self, from: answer.body) else {
            throw SetupError("the daemon answered with status \(answer.status)")
        }
        let details = (problem.details ?? []).map { "\n  \($0.path.isEmpty ? "body" : $0.path): \($0.message)" }
        throw SetupError(problem.message + details.joined())
    }

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
        return descriptor
    }

    /// The answer ends with the connection.
    private func exchange(
        _ method: String,
        _ target: String,
        _ headers: [String: String],
        _ body: [UInt8]
    ) throws -> Answer {
        let descriptor = try connect()
        defer { close(descriptor) }
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
        var answer: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 64 * 1024)
        while true {
            let count = recv(descriptor, &chunk, chunk.count, 0)
            if count < 0, errno == EINTR { continue }
            guard count >= 0 else {
                throw SetupError("cannot read from \(socket): \(String(cString: strerror(errno)))")
            }
            if count == 0 { break }
            answer += chunk.prefix(count)
        }
        return try Self.parse(answer)
    }

    private static func parse(_ bytes: [UInt8]) throws -> Answer {
        let separator = Array("\r\n\r\n".utf8)
        let words = String(decoding: bytes.prefix { $0 != 0x0d }, as: UTF8.self).split(separator: " ")
        guard words.count >= 2, words[0].hasPrefix("HTTP/1."), let status = Int(words[1]),
            let end = bytes.indices.first(where: { bytes[$0...].starts(with: separator) })
        else { throw SetupError("what listens there does not speak HTTP") }
        let head = String(decoding: bytes[..<end], as: UTF8.self).lowercased()
        let body = bytes[(end + separator.count)...]
        return Answer(status: status, body: Data(head.contains("transfer-encoding: chunked") ? unchunked(body) : body))
    }

    /// The daemon sends an answer whose length it does not know beforehand in chunks (RFC 9112 7.1).
    private static func unchunked(_ bytes: ArraySlice<UInt8>) -> ArraySlice<UInt8> {
        var rest = bytes
        var body: [UInt8] = []
        while let lineEnd = rest.firstIndex(of: 0x0d) {
            let line = String(decoding: rest[rest.startIndex..<lineEnd], as: UTF8.self)
            guard let size = Int(line.prefix { $0 != ";" }, radix: 16), size > 0, lineEnd + 2 + size <= rest.endIndex
            else { break }
            body += rest[(lineEnd + 2)..<(lineEnd + 2 + size)]
            rest = rest[min(lineEnd + 4 + size, rest.endIndex)...]
        }
        return body[...]
    }
}
