import CLinux
import FoundationEssentials
import Glibc
import Reactor

/// Asks a container engine (Docker, or Podman with its API service) through its Unix socket for a container's process.
/// One question, one answer, one connection; it blocks for at most a few seconds.
public struct ContainerRuntime: Sendable {
    /// The paths of engines' sockets, in the order in which they are asked.
    public let sockets: [String]

    /// Where engines listen by default.
    public static let defaultSockets = ["/run/docker.sock", "/var/run/docker.sock", "/run/podman/podman.sock"]

    private static let patienceSeconds = 5
    /// What an engine says of a container is some 10 KiB.
    private static let longestAnswer = 4 << 20

    /// A runtime at these sockets.
    public init(sockets: [String] = ContainerRuntime.defaultSockets) {
        self.sockets = sockets
    }

    private struct Container: Decodable {
        struct State: Decodable {
            let process: Int32
            let isRunning: Bool

            private enum CodingKeys: String, CodingKey {
                case process = "Pid"
                case isRunning = "Running"
            }
        }

        let state: State

        private enum CodingKeys: String, CodingKey {
            case state = "State"
        }
    }

    /// The first process of a container that runs. `name` must be a valid name or id.
    func process(of name: String) throws(NodeError) -> Int32 {
        let field = "attachment.container"
        var isUnknown = false
        for path in sockets where access(path, F_OK) == 0 {
            guard let (status, body) = try ask(path, "/containers/\(name)/json") else { continue }
            if status == 404 {
                isUnknown = true
                continue
            }
            guard status == 200, let container = try? JSONDecoder().decode(Container.self, from: Data(body)) else {
                throw .unprocessable(field: field, "\(path) answered with status \(status)")
            }
            guard container.state.isRunning, container.state.process > 0 else {
                throw .unprocessable(field: field, "container \(name) does not run")
            }
            return container.state.process
        }
        let places = sockets.joined(separator: ", ")
        throw .unprocessable(
            field: field,
            isUnknown ? "there is no container \(name)" : "no container engine listens at \(places)"
        )
    }

    /// HTTP/1.0, so that the answer is neither chunked nor followed by another one. `nil` where nobody listens: an engine that was
    /// ended leaves its socket.
    private func ask(_ path: String, _ target: String) throws(NodeError) -> (status: Int, body: ArraySlice<UInt8>)? {
        func failure(_ what: String) -> NodeError {
            let cause = errno == EAGAIN ? "nothing for \(Self.patienceSeconds) s" : String(cString: strerror(errno))
            return .unprocessable(field: "attachment.container", "cannot \(what) \(path): \(cause)")
        }
        let descriptor = socket(AF_UNIX, CInt(SOCK_STREAM.rawValue) | CInt(SOCK_CLOEXEC.rawValue), 0)
        guard descriptor >= 0 else { throw failure("open a socket for") }
        defer { close(descriptor) }
        var patience = timeval(tv_sec: Self.patienceSeconds, tv_usec: 0)
        for option in [SO_RCVTIMEO, SO_SNDTIMEO] {
            setsockopt(descriptor, SOL_SOCKET, option, &patience, socklen_t(MemoryLayout<timeval>.size))
        }
        guard Self.connect(descriptor, path) else {
            if errno == ECONNREFUSED { return nil }
            throw failure("connect to")
        }
        let request = Array("GET \(target) HTTP/1.0\r\nHost: localhost\r\n\r\n".utf8)
        guard send(descriptor, request, request.count, CInt(MSG_NOSIGNAL)) == request.count else {
            throw failure("write to")
        }
        var answer: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 64 * 1024)
        while answer.count < Self.longestAnswer {
            let count = recv(descriptor, &chunk, chunk.count, 0)
            if count < 0, errno == EINTR { continue }
            guard count >= 0 else { throw failure("read from") }
            if count == 0 { break }
            answer += chunk.prefix(count)
        }
        let head = String(decoding: answer.prefix { $0 != UInt8(ascii: "\r") }, as: UTF8.self)
        let words = head.split(separator: " ")
        let separator = Array("\r\n\r\n".utf8)
        guard words.count >= 2, words[0].hasPrefix("HTTP/1."), let status = Int(words[1]),
            let end = answer.indices.first(where: { answer[$0...].starts(with: separator) })
        else { throw .unprocessable(field: "attachment.container", "\(path) does not speak HTTP") }
        return (status, answer[(end + separator.count)...])
    }

    private static func connect(_ descriptor: CInt, _ path: String) -> Bool {
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        let bytes = Array(path.utf8)
        guard bytes.count < MemoryLayout.size(ofValue: address.sun_path) else {
            errno = ENAMETOOLONG
            return false
        }
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: bytes) }
        return withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                Glibc.connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        } == 0
    }
}
