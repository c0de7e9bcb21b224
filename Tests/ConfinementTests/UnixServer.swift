import CConfinement
import CLinux
import Foundation
import Glibc

@testable import Confinement

/// A Unix socket of the node that anybody may connect to.
final class UnixServer {
    private let descriptor: CInt
    private var path: String

    /// A listening socket; a path that begins with NUL is an abstract name.
    init(_ path: String) throws {
        self.path = path
        unlink(path)
        descriptor = socket(AF_UNIX, CInt(SOCK_STREAM.rawValue), 0)
        let isBound = Self.withAddress(path) { bind(descriptor, $0, $1) } == 0
        guard isBound, listen(descriptor, 16) == 0 else {
            throw ConfinementError("cannot listen on \(path)", errno: errno)
        }
    }

    /// A Python program that connects and says how that went.
    var client: String {
        """
        import socket
        s = socket.socket(socket.AF_UNIX)
        try:
            s.connect('\(path.replacingOccurrences(of: "\0", with: "\\0"))'); print("connected")
        except OSError as e: print(e)
        """
    }

    /// Follows the socket file, which has been given another name.
    func isNow(at path: String) { self.path = path }

    /// Whether an unconfined client gets through.
    func answers() -> Bool {
        let client = socket(AF_UNIX, CInt(SOCK_STREAM.rawValue), 0)
        defer { close(client) }
        return Self.withAddress(path) { connect(client, $0, $1) } == 0
    }

    private static func withAddress(_ path: String, _ body: (UnsafePointer<sockaddr>, socklen_t) -> CInt) -> CInt {
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path.utf8) }
        let isAbstract = path.hasPrefix("\0")
        let length = socklen_t(2 + path.utf8.count + (isAbstract ? 0 : 1))
        return withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { body($0, length) }
        }
    }

    deinit {
        close(descriptor)
        if path.hasPrefix("/") { unlink(path) }
    }
}
