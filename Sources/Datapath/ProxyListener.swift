public import NetPrimitives
public import Reactor

/// Accepts a sandbox's TCP connections on one socket inside its namespace and begins a ``Tunnel`` for each: those that
/// the kernel redirected, of programs that know of no proxy, and those of programs that were told of one.
public final class ProxyListener {
    private unowned let attachment: Attachment
    /// The address family of its socket.
    public let family: IPAddress.Family
    private var listener: Listener?
    /// Where it listens, and so every connection's end here.
    private let endpoint: Endpoint?

    /// Takes ownership of `descriptor`, a listening socket of `family` inside the sandbox's namespace, bound to one address;
    /// on an error it stays the caller's.
    public init(_ attachment: Attachment, descriptor: CInt, family: IPAddress.Family) throws(SystemError) {
        self.attachment = attachment
        self.family = family
        // Connections inherit it: what programs are told is sent at once, and what is cut off by the end of the process looks so.
        Sockets.setNoDelay(descriptor)
        Sockets.setAbortive(descriptor, true)
        self.endpoint = Sockets.localEndpoint(descriptor)
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

    /// Accepts nothing more, and gives up the socket for another process to go on with. `nil` when it has stopped.
    public func handOver() -> CInt? {
        defer { listener = nil }
        return listener?.release()
    }

    private func begin(_ client: CInt) {
        guard !attachment.isPaused else { return Sockets.reset(client) }
        guard attachment.hasRoomForTunnel else {
            attachment.tell(.connections)
            return Sockets.reset(client)
        }
        // What was not redirected came to our port by itself: a client that was told of a proxy, and has to say where to.
        if let destination = Sockets.originalDestination(client, family),
            destination != endpoint
        {
            Tunnel(attachment, downstream: client, entry: .transparent(destination)).start()
        } else {
            Tunnel(attachment, downstream: client, entry: .proxy).start()
        }
    }
}
