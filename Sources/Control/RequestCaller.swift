import CLinux
import Glibc
import NIOCore

/// Who sent a request, as far as the connection tells: for records of what cannot be undone.
struct RequestCaller {
    /// `by process 812 (uid 0) over the socket`, `from 192.0.2.7`. The process is the one that opened the connection.
    let words: String

    init(_ context: ControlContext) async {
        let channel = context.channel
        if let address = channel.remoteAddress, let ip = address.ipAddress {
            words = "from \(ip)"
        } else if let options = channel as? any SocketOptionProvider,
            let peer: clinux_credentials = try? await options.unsafeGetSocketOption(
                level: .init(rawValue: SOL_SOCKET),
                name: .init(rawValue: SO_PEERCRED)
            ).get()
        {
            words = "by process \(peer.process) (uid \(peer.user)) over the socket"
        } else {
            words = "over the socket"
        }
    }
}
