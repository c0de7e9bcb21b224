internal import CAres
import Glibc
internal import NetPrimitives
internal import Reactor

/// The calls by which c-ares uses its sockets. Its own take five system calls a query more: they set flags one by one,
/// and look for a second datagram where the loop would tell of one.
extension AresChannel {
    /// c-ares keeps the pointer for as long as there is a channel.
    nonisolated(unsafe) static let socketFunctions: UnsafePointer<ares_socket_functions> = {
        let functions = UnsafeMutablePointer<ares_socket_functions>.allocate(capacity: 1)
        functions.initialize(
            to: ares_socket_functions(
                asocket: { family, type, _, context in AresChannel.at(context).openSocket(family, type) },
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

    private func openSocket(_ family: CInt, _ type: CInt) -> CInt {
        let isStream = type == CInt(SOCK_STREAM.rawValue)
        do {
            let descriptor = try Sockets.outgoing(
                family == AF_INET ? .v4 : .v6,
                isStream: isStream,
                pass: loop.upstreamPass,
                "DNS"
            )
            if isStream {
                Sockets.setNoDelay(descriptor)
                stream = descriptor
            } else if stream == descriptor {
                stream = -1
            }
            return descriptor
        } catch {
            errno = error.errno
            return ARES_SOCKET_BAD
        }
    }

    /// One datagram an event: it mostly ends the query. A stream, of which no address is asked, is read as far as c-ares wants
    /// to.
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
