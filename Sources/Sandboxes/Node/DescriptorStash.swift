import CLinux
import Glibc
import Reactor

/// Descriptors in the queue of a Unix socket (SCM_RIGHTS, unix(7)): they stay open while the socket is, whoever holds it,
/// and whoever gets it takes them out. So one descriptor stands for thousands, and they outlive the process that put
/// them there.
enum DescriptorStash {
    /// Puts descriptors into a new stash, whose descriptor becomes the caller's; they stay the caller's, too.
    static func put(_ descriptors: [CInt]) throws(SystemError) -> CInt {
        var ends: [CInt] = [-1, -1]
        // A stream: a socket for datagrams holds no more than net.unix.max_dgram_qlen of them.
        guard socketpair(AF_UNIX, CInt(SOCK_STREAM.rawValue) | CInt(SOCK_CLOEXEC.rawValue), 0, &ends) == 0 else {
            throw .current("make a socket pair")
        }
        defer { close(ends[1]) }
        do throws(SystemError) {
            var room: CInt = queueBytes
            guard setsockopt(ends[1], SOL_SOCKET, SO_SNDBUFFORCE, &room, socklen_t(MemoryLayout<CInt>.size)) == 0,
                fcntl(ends[1], F_SETFL, O_NONBLOCK) == 0
            else { throw .current("enlarge a socket's buffer") }
            var rest = descriptors[...]
            while !rest.isEmpty {
                let piece = Array(rest.prefix(Int(CLINUX_DESCRIPTORS_MAX)))
                // One byte for each message, since a stream carries no descriptors by themselves.
                guard clinux_send_descriptors(ends[1], [0], 1, piece, piece.count) == 1 else {
                    throw .current("put descriptors into a socket")
                }
                rest = rest.dropFirst(piece.count)
            }
        } catch {
            close(ends[0])
            throw error
        }
        return ends[0]
    }

    /// Takes everything out of a stash and closes it. The descriptors are closed on execution.
    static func take(_ stash: CInt) throws(SystemError) -> [CInt] {
        defer { close(stash) }
        var taken: [CInt] = []
        while true {
            var byte: UInt8 = 0
            var piece = [CInt](repeating: -1, count: Int(CLINUX_DESCRIPTORS_MAX))
            var count = 0
            let length = clinux_receive_descriptors(stash, &byte, 1, &piece, &count)
            guard length >= 0 else {
                let error = SystemError.current("take descriptors out of a socket")
                taken.forEach(Sockets.close)
                throw error
            }
            if length == 0 { return taken }
            taken += piece.prefix(count)
        }
    }

    /// Room for some 30,000 messages of the kernel's accounting.
    private static let queueBytes: CInt = 32 << 20
}
