import Glibc
import Hummingbird
import HummingbirdCore
import Logging
import NIOCore

/// An API cannot be served.
public struct ListenError: Error, CustomStringConvertible {
    let place: String
    let reason: String

    /// Where, and why.
    public var description: String { "cannot listen at \(place): \(reason)" }
}

/// Serves HTTP at one place, until the task is cancelled.
struct HTTPService {
    /// Where.
    let address: BindAddress
    /// The same, for messages.
    let place: String
    /// What speaks it.
    let server: HTTPServerBuilder
    let log: Logger

    /// Connections that anybody can make: one that asks for nothing for a minute is closed.
    static let boundedConnections = HTTP1Channel.Configuration(
        additionalChannelHandlers: [IdleConnectionHandler(tick: .seconds(10), limit: 6)]
    )

    /// A host and a port, for messages.
    static func text(host: String, port: Int) -> String {
        host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)"
    }

    /// Serves. `onReady` is called when clients can connect.
    func run<Responder: HTTPResponder>(
        _ responder: Responder,
        onReady: @escaping @Sendable () async -> Void
    ) async throws where Responder.Context == ControlContext {
        // Of connections that end in the middle, which is up to the clients and to the end of this process, the server says
        // that they fail.
        var quiet = log
        quiet.logLevel = .critical
        let application = Application(
            responder: responder,
            server: server,
            configuration: ApplicationConfiguration(address: address),
            onServerRunning: { _ in await onReady() },
            logger: quiet
        )
        do {
            try await application.run()
        } catch let error as IOError {
            throw ListenError(place: place, reason: String(cString: strerror(error.errnoCode)))
        }
    }
}
