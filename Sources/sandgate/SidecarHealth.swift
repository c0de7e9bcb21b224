import CLinux
import Control
import Glibc

/// `sandgate sidecar --check`: whether the sidecar of this container is well, for an image that has no other program.
enum SidecarHealth {
    private static let limitSeconds = 3

    /// Asks `GET /healthz`, and throws where the answer is not 200 or does not come in time.
    static func require(_ settings: SidecarServer.Settings) throws {
        // What listens at every address listens at this one.
        let everywhere = ["0.0.0.0", "::"]
        let host = settings.host.flatMap { everywhere.contains($0) ? nil : $0 } ?? "127.0.0.1"
        let descriptor = try connect(host, settings.port)
        defer { close(descriptor) }
        let request = Array("GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".utf8)
        let expected = Array("HTTP/1.1 200 ".utf8)
        var answer = [UInt8](repeating: 0, count: expected.count)
        guard send(descriptor, request, request.count, CInt(MSG_NOSIGNAL)) == request.count,
            recv(descriptor, &answer, answer.count, CInt(MSG_WAITALL)) == answer.count, answer == expected
        else { throw SetupError("the sidecar at \(host):\(settings.port) does not say that it is well") }
    }

    private static func connect(_ host: String, _ port: Int) throws -> CInt {
        var hints = addrinfo()
        hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV
        hints.ai_socktype = CInt(SOCK_STREAM.rawValue)
        var found: UnsafeMutablePointer<addrinfo>?
        guard getaddrinfo(host, "\(port)", &hints, &found) == 0, let address = found?.pointee else {
            throw SetupError("\(host) is no address")
        }
        defer { freeaddrinfo(found) }
        let descriptor = socket(address.ai_family, address.ai_socktype | CInt(SOCK_CLOEXEC.rawValue), 0)
        guard descriptor >= 0 else { throw SetupError("cannot open a socket: \(String(cString: strerror(errno)))") }
        // Both for what is sent, a connection's beginning included, and for what is received.
        var limit = timeval(tv_sec: limitSeconds, tv_usec: 0)
        for option in [SO_SNDTIMEO, SO_RCVTIMEO] {
            setsockopt(descriptor, SOL_SOCKET, option, &limit, socklen_t(MemoryLayout<timeval>.size))
        }
        guard Glibc.connect(descriptor, address.ai_addr, address.ai_addrlen) == 0 else {
            let problem = String(cString: strerror(errno))
            close(descriptor)
            throw SetupError("no sidecar at \(host):\(port): \(problem)")
        }
        return descriptor
    }
}
