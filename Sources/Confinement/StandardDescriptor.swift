internal import CLinux
internal import Glibc

/// What a command is handed as its standard input, output and error is its to use, past every rule: what is sent to a
/// connected socket leaves, and a directory leads to the node's files as they were before anything was hidden.
///
/// Files, terminals, pipes and Unix sockets pass: socket pairs are how process managers read a program's output, and
/// whoever holds the other end is whom the command was meant to talk to.
enum StandardDescriptor {
    static func requireAllHarmless(
        _ descriptors: (input: CInt, output: CInt, error: CInt),
        hasNoUnixSockets: Bool
    ) throws(ConfinementError) {
        let named = [("input", descriptors.input), ("output", descriptors.output), ("error", descriptors.error)]
        for (name, descriptor) in named {
            var status = stat()
            guard fstat(descriptor, &status) == 0 else { continue }  // closed: init says so
            switch status.st_mode & S_IFMT {
            case S_IFSOCK where domain(of: descriptor) != AF_UNIX:
                throw ConfinementError(
                    "cannot pass a network socket on as standard \(name), since it leads past the policy",
                    errno: EPERM,
                    remedy: "put a pipe between, as a shell's | does"
                )
            case S_IFSOCK where hasNoUnixSockets && !isConnectedForGood(descriptor):
                throw ConfinementError(
                    "cannot pass a unix socket on as standard \(name) that can be connected elsewhere",
                    errno: EPERM
                )
            case S_IFDIR:
                throw ConfinementError(
                    "cannot pass a directory on as standard \(name), since it leads to what is hidden",
                    errno: EPERM
                )
            default:
                continue
            }
        }
    }

    /// The socket's address family; -1 when it cannot be told.
    private static func domain(of descriptor: CInt) -> CInt { option(SO_DOMAIN, of: descriptor) }

    /// Whether a Unix socket has its peer and can get no other.
    private static func isConnectedForGood(_ descriptor: CInt) -> Bool {
        var address = sockaddr_un()
        var length = socklen_t(MemoryLayout<sockaddr_un>.size)
        let hasPeer = withUnsafeMutablePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { getpeername(descriptor, $0, &length) == 0 }
        }
        return hasPeer && option(SO_TYPE, of: descriptor) != CInt(SOCK_DGRAM.rawValue)
    }

    private static func option(_ name: CInt, of descriptor: CInt) -> CInt {
        var value: CInt = -1
        var length = socklen_t(MemoryLayout<CInt>.size)
        return getsockopt(descriptor, SOL_SOCKET, name, &value, &length) == 0 ? value : -1
    }
}
