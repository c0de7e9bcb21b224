public import Audit
import HTTPTypes
import Hummingbird
import HummingbirdCore
public import Logging
public import Sandboxes
public import Webhook

/// Serves a node's API: over a Unix socket to whoever may open it, over TCP to whoever has a token.
public struct ControlServer: Sendable {
    /// Where the API is served.
    public enum Place: Sendable {
        /// A Unix socket, which is its owner's alone.
        case socket(path: String)
        /// An address and port, and what is shown there over TLS; `nil` for no TLS.
        case tcp(host: String, port: Int, tokens: AccessTokens, tls: TLSIdentity? = nil)

        /// For messages.
        var description: String {
            switch self {
            case .socket(let path): path
            case .tcp(let host, let port, _, _): HTTPService.text(host: host, port: port)
            }
        }
    }

    private let node: SandboxNode
    private let archive: AuditArchive
    private let place: Place
    private let socket: String?
    private let webhook: DenialWebhook?
    private let requests: RequestsUnderWay
    private let log: Logger

    /// A server of `node` at one place. `socket` is the Unix socket that commands have to name; `nil` for the usual one.
    /// `webhook` is the one whose counters are told; `requests` holds what is being answered.
    public init(
        node: SandboxNode,
        archive: AuditArchive,
        place: Place,
        socket: String? = nil,
        webhook: DenialWebhook? = nil,
        requests: RequestsUnderWay = RequestsUnderWay(),
        log: Logger
    ) {
        self.node = node
        self.archive = archive
        self.place = place
        self.socket = socket
        self.webhook = webhook
        self.requests = requests
        self.log = log
    }

    /// Serves until the task is cancelled. `onReady` is called when clients can connect.
    public func run(onReady: @escaping @Sendable () async -> Void) async throws {
        let address: BindAddress
        let server: HTTPServerBuilder
        switch place {
        case .socket(let path):
            address = .unixDomainSocket(path: path)
            server = .http1()
        case .tcp(let host, let port, _, let tls):
            address = .hostname(host, port: port)
            server = Self.connections(tls)
        }
        let service = HTTPService(address: address, place: place.description, server: server, log: log)
        try await service.run(router().buildResponder(), onReady: onReady)
    }

    /// Connections that anybody can make, with a token or without: one that asks for nothing, or never ends its handshake,
    /// is closed.
    private static func connections(_ identity: TLSIdentity?) -> HTTPServerBuilder {
        guard let identity else { return .http1(configuration: HTTPService.boundedConnections) }
        return HTTPServerBuilder { responder in
            TLSConnections(
                identity: identity,
                connections: HTTP1Channel(responder: responder, configuration: HTTPService.boundedConnections)
            )
        }
    }

    private func router() -> Router<ControlContext> {
        let router = Router(context: ControlContext.self, options: .autoGenerateHeadEndpoints)
        router.add(middleware: UnderWayMiddleware(requests: requests))
        router.add(middleware: ErrorMiddleware())
        switch place {
        case .socket:
            router.add(middleware: PeerMiddleware())
            router.add(middleware: OriginMiddleware(isOpen: true))
        case .tcp(_, _, let tokens, _):
            router.add(middleware: OriginMiddleware(isOpen: false))
            router.add(middleware: TokenMiddleware(tokens: tokens))
        }
        OperatorPage.add(to: router)
        router.get("healthz") { _, _ in Answer.raw(Array("ok\n".utf8), type: "text/plain") }
        router.get("readyz") { _, _ in Answer.raw(Array("ok\n".utf8), type: "text/plain") }
        router.get("metrics") { [node, webhook] _, _ in
            var states: [SandboxRecord.State: Int] = [:]
            for record in await node.records() { states[record.state, default: 0] += 1 }
            let text = MetricsText.render(
                node.journal.counters(),
                states: states,
                await node.measurements(),
                webhook: webhook?.counters
            )
            return Answer.raw(Array(text.utf8), type: "text/plain; version=0.0.4; charset=utf-8")
        }
        router.get("openapi.yaml") { _, _ in Answer.raw(PackageResources.openapi_yaml, type: "application/yaml") }
        let sandboxes = router.group("v1/sandboxes")
        SandboxRoutes(node: node).add(to: sandboxes)
        PolicyRoutes(node: node).add(to: sandboxes)
        let questions = QuestionRoutes(node: node)
        questions.addSandbox(to: sandboxes)
        let connections = ConnectionRoutes(node: node)
        connections.addSandbox(to: sandboxes)
        let version = router.group("v1")
        questions.add(to: version)
        connections.add(to: version)
        PolicyToolRoutes(node: node, socket: socket).add(to: version)
        AuditRoutes(node: node, archive: archive).add(to: version)
        router.add(middleware: WrongMethodMiddleware(router))
        return router
    }
}

/// Answers whatever was thrown.
private struct ErrorMiddleware<Context: RequestContext>: RouterMiddleware {
    func handle(
        _ request: Request,
        context: Context,
        next: (Request, Context) async throws -> Response
    ) async throws -> Response {
        do {
            return try await next(request, context)
        } catch {
            let response = APIError(error).response
            // A body would be taken for the next answer.
            return request.method == .head ? response.createHeadResponse() : response
        }
    }
}
