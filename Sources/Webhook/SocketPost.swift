import FoundationEssentials
import NIOCore
import NIOHTTP1
import NIOPosix
import NIOSSL

/// Posts a body over a connected socket: for whoever has to open its sockets by itself. One request a connection; no
/// redirect is followed.
struct SocketPost {
    /// How long sending, a handshake before it and the answer may take together.
    private static let patience = TimeAmount.seconds(5)
    /// A server may say something; whoever posts reads it, so that the server can send it.
    fileprivate static let longestAnswer = 16 << 10

    private let endpoint: WebhookEndpoint
    private let target: String
    private let tls: NIOSSLContext?

    /// Posts to `endpoint`. Throws where it cannot be: no authorities to check certificates with, or a path that is none.
    init(_ endpoint: WebhookEndpoint) throws {
        guard let target = endpoint.requestTarget else {
            throw WebhookEndpoint.FormatError(description: "the URL's path has characters that stand for nothing there")
        }
        self.endpoint = endpoint
        self.target = target
        tls = endpoint.isTLS ? try NIOSSLContext(configuration: .makeClientConfiguration()) : nil
    }

    /// Posts a body of JSON over `descriptor`, which it closes. Returns the answer's status.
    func post(_ body: [UInt8], over descriptor: CInt) async throws -> UInt {
        let group = MultiThreadedEventLoopGroup.singleton
        let loop = group.next()
        let status = loop.makePromise(of: UInt.self)
        let bootstrap = ClientBootstrap(group: loop).channelInitializer { channel in
            channel.eventLoop.makeCompletedFuture {
                if let tls {
                    let name = endpoint.serverName
                    let handler = try NIOSSLClientHandler(context: tls, serverHostname: name)
                    try channel.pipeline.syncOperations.addHandler(handler)
                }
                try channel.pipeline.syncOperations.addHTTPClientHandlers()
                try channel.pipeline.syncOperations.addHandler(Exchange(head: head(body.count), body: body, status))
            }
        }
        let channel: any Channel
        do {
            channel = try await bootstrap.withConnectedSocket(descriptor).get()
        } catch {
            status.fail(error)
            throw error
        }
        let limit = loop.scheduleTask(in: Self.patience) {
            status.fail(Failure.tooSlow)
            channel.close(promise: nil)
        }
        defer {
            limit.cancel()
            channel.close(promise: nil)
        }
        return try await withTaskCancellationHandler {
            try await status.futureResult.get()
        } onCancel: {
            channel.close(promise: nil)
        }
    }

    private func head(_ length: Int) -> HTTPRequestHead {
        HTTPRequestHead(
            version: .http1_1,
            method: .POST,
            uri: target,
            headers: [
                "Host": endpoint.hostField, "User-Agent": "sandgate", "Content-Type": "application/json",
                "Content-Length": "\(length)", "Connection": "close",
            ]
        )
    }

    /// Why there is no status.
    fileprivate enum Failure: Error, CustomStringConvertible {
        case tooSlow
        case noAnswer

        var description: String {
            switch self {
            case .tooSlow: "no answer in time"
            case .noAnswer: "the connection ended without an answer"
            }
        }
    }
}

/// One request and what is answered to it. Confined to its channel's loop.
private final class Exchange: ChannelInboundHandler, Sendable {
    typealias InboundIn = HTTPClientResponsePart
    typealias OutboundOut = HTTPClientRequestPart

    private struct Answer {
        var status: UInt?
        var length = 0
    }

    private let head: HTTPRequestHead
    private let body: [UInt8]
    private let promise: EventLoopPromise<UInt>
    private let answer: NIOLoopBoundBox<Answer>

    init(head: HTTPRequestHead, body: [UInt8], _ promise: EventLoopPromise<UInt>) {
        self.head = head
        self.body = body
        self.promise = promise
        answer = NIOLoopBoundBox(Answer(), eventLoop: promise.futureResult.eventLoop)
    }

    func channelActive(context: ChannelHandlerContext) {
        context.write(wrapOutboundOut(.head(head)), promise: nil)
        context.write(wrapOutboundOut(.body(.byteBuffer(ByteBuffer(bytes: body)))), promise: nil)
        context.writeAndFlush(wrapOutboundOut(.end(nil)), promise: nil)
        context.fireChannelActive()
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        switch unwrapInboundIn(data) {
        case .head(let head):
            // What is informational only comes before the answer (RFC 9110 15.2).
            if head.status.code >= 200 { answer.value.status = head.status.code }
        case .body(let bytes):
            answer.value.length += bytes.readableBytes
            if answer.value.length > SocketPost.longestAnswer { finish(context) }
        case .end:
            finish(context)
        }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        // A server that has answered may end the connection as it likes.
        if answer.value.status == nil { promise.fail(error) }
        finish(context)
    }

    func channelInactive(context: ChannelHandlerContext) {
        finish(context)
    }

    private func finish(_ context: ChannelHandlerContext) {
        if let status = answer.value.status {
            promise.succeed(status)
        } else {
            promise.fail(SocketPost.Failure.noAnswer)
        }
        context.close(promise: nil)
    }
}

extension WebhookEndpoint {
    /// The name that a TLS server is asked by; `nil` for an address, which the certificate has to hold then.
    fileprivate var serverName: String? {
        let isDigits = host.utf8.allSatisfy { $0 == UInt8(ascii: ".") || (0x30...0x39).contains($0) }
        return isDigits || host.contains(":") ? nil : host
    }
}
