public import NetPrimitives
public import Reactor

/// Accepts a sandbox's TCP connections on one socket inside its namespace and begins a ``Tunnel`` for each.
public final class ProxyListener {
    /// What the clients of the socket are.
    public enum Kind: Hashable, Sendable {
        /// Programs that know of no proxy; the kernel redirected them.
        case transparent
        /// Programs that were told of the proxy.
        case explicit
    }

    private unowned let attachment: Attachment
    private let family: IPAddress.Family
    private let kind: Kind
    private var listener: Listener?

    /// Takes ownership of `descriptor`, a listening socket of `family` inside the sandbox's namespace; on an error it
    /// stays the caller's.
    public init(_ attachment: Attachment, descriptor: CInt, family: IPAddress.Family, kind: Kind) throws(SystemError) {
        self.attachment = attachment
        self.family = family
        self.kind = kind
        self.listener = try Listener(loop: attachment.loop, descriptor: descriptor) { [weak self] client, _ in
            guard let self else { return Sockets.reset(client) }
            begin(client)
        }
    }

    /// Closes the socket: the kernel's redirect then leads nowhere, which refuses.
    public func stop() {
        listener?.close()
        listener = nil
    }

    private func begin(_ client: CInt) {
        guard !attachment.isPaused, attachment.hasRoomForTunnel else { return Sockets.reset(client) }
        switch kind {
        case .explicit:
            Tunnel(attachment, downstream: client, entry: .proxy).start()
        case .transparent:
            // A connection that was not redirected came straight to our port: there is nowhere it wanted to go.
            guard let destination = Sockets.originalDestination(client, family),
                destination != Sockets.localEndpoint(client)
            else { return Sockets.reset(client) }
            Tunnel(attachment, downstream: client, entry: .transparent(destination)).start()
        }
    }
}
