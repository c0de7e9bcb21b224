import CLinux
import Glibc
import NIOCore

/// Who sent a request, as far as the connection tells: for records.
enum RequestCaller {
    /// It came over TCP.
    case address(String)
    /// It came over a Unix socket, which this process opened.
    case process(clinux_credentials)
    /// It came over a Unix socket, and whose that was is not known any more.
    case unknown

    init(_ context: ControlContext) async {
        let channel = context.channel
        if let address = channel.remoteAddress?.ipAddress {
            self = .address(address)
        } else if let peer = try? await (channel as? any SocketOptionProvider)?.peerCredentials() {
            self = .process(peer)
        } else {
            self = .unknown
        }
    }

    /// In a sentence: `by process 812 (uid 0) over the socket`, `from 192.0.2.7`.
    var words: String {
        switch self {
        case .address(let address): "from \(address)"
        case .process(let peer): "by process \(peer.process) (uid \(peer.user)) over the socket"
        case .unknown: "over the socket"
        }
    }

    /// As the name of who answers: `uid 0`, `192.0.2.7`.
    var name: String {
        switch self {
        case .address(let address): address
        case .process(let peer): "uid \(peer.user)"
        case .unknown: "unknown"
        }
    }
}

extension SocketOptionProvider {
    /// Who opened the Unix socket at the other end (SO_PEERCRED, unix(7)).
    func peerCredentials() async throws -> clinux_credentials {
        try await unsafeGetSocketOption(
            level: .init(rawValue: SOL_SOCKET),
            name: .init(rawValue: SO_PEERCRED)
        ).get()
    }
}
