internal import CAres
import Glibc
internal import Reactor

/// The calls by which c-ares uses its sockets. Its own take five system calls a query more: they set flags one by one,
/// and look for a second datagram where the loop would tell of one.
extension AresChannel {
    /// c-ares keeps the pointer for as long as there is a channel.
    nonisolated(unsafe) static let socketFunctions: UnsafePointer<ares_socket_functions> = {
        let functions = UnsafeMutablePointer<ares_socket_functions>.allocate(capacity: 1)
        functions.initialize(
            to: ares_socket_functions(
                asocket: { family, type, number, context in AresChannel.at(context).openSocket(family, type, number) },
                aclose: { descriptor, _ in Glibc.close(descriptor) },
                aconnect: { descriptor, address, length, _ in Glibc.connect(descriptor, address, length) },
                arecvfrom: { descriptor, bytes, count, flags, address, length, context in
                    AresChannel.at(context).receive(descriptor, bytes, count, flags, address, length)
                },
                asendv: { descriptor, parts, count, _ in
                    var message = msghdr()
                    message.msg_iov = UnsafeMutablePointer(mutating: parts)
                    message.msg_iovlen = Int(count)
                    return sendmsg(descriptor, &message, CInt(MSG_NOSIGNAL))
                }
            )
        )
        return UnsafePointer(functions)
    }()

    /// Without the pass that the namespace asks for there is no socket.
    private func openSocket(_ family: CInt, _ type: CInt, _ number: CInt) -> CInt {
        let flags = CInt(SOCK_NONBLOCK.rawValue) | CInt(SOCK_CLOEXEC.rawValue)
        let descriptor = socket(family, type | flags, number)
        guard descriptor >= 0 else { return ARES_SOCKET_BAD }
        if let pass = loop.upstreamPass, !Sockets.hold(descriptor, pass) {
            let code = errno
            _ = Glibc.close(descriptor)
            errno = code
            return ARES_SOCKET_BAD
        }
        if type == CInt(SOCK_STREAM.rawValue) { Sockets.setNoDelay(descriptor) }
        return descriptor
    }

    /// One datagram an event: of another one the loop tells anew. A stream, of which no address is asked, is read as far
    /// as c-ares wants to.
    private func receive(
        _ descriptor: CInt,
        _ bytes: UnsafeMutableRawPointer?,
        _ count: Int,
        _ flags: CInt,
        _ address: UnsafeMutablePointer<sockaddr>?,
        _ length: UnsafeMutablePointer<socklen_t>?
    ) -> Int {
        guard address != nil else { return recv(descriptor, bytes, count, flags) }
        guard !hasReceivedDatagram else {
            errno = EAGAIN
            return -1
        }
        hasReceivedDatagram = true
        return recvfrom(descriptor, bytes, count, flags, address, length)
    }
}
