import HummingbirdCore
import Logging
import NIOCore
import NIOSSL

/// Connections of a server that begin with a TLS handshake, each with the identity as it is then. Hummingbird's own has the
/// one that the server was built with.
struct TLSConnections<Connections: ServerChildChannel>: ServerChildChannel {
    typealias Value = Connections.Value

    let identity: TLSIdentity
    /// What is spoken inside.
    let connections: Connections

    func setup(channel: any Channel, logger: Logger) -> EventLoopFuture<Value> {
        channel.eventLoop.makeCompletedFuture {
            try channel.pipeline.syncOperations.addHandler(NIOSSLServerHandler(context: identity.context))
        }.flatMap {
            connections.setup(channel: channel, logger: logger)
        }
    }

    func handle(value: Value, logger: Logger) async {
        await connections.handle(value: value, logger: logger)
    }
}
