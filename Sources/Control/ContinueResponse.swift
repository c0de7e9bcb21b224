import HTTPTypes
import Hummingbird
import NIOCore
import NIOHTTP1

/// The answer to `Expect: 100-continue` (RFC 9110 10.1.1). Clients that say so wait for it before they send their body: curl
/// for a second, others for ever. It is due when the body is wanted, and not when the request is refused without.
enum ContinueResponse {
    private static let text = "HTTP/1.1 100 Continue\r\n\r\n"

    /// Sends it, if the request asks for it.
    static func send(for request: Request, over channel: any Channel) async throws {
        guard request.headers[.expect]?.lowercased() == "100-continue" else { return }
        try await channel.eventLoop.submit {
            // What is written there goes to the client as it is; Hummingbird takes one response for a request.
            let encoder = try channel.pipeline.syncOperations.context(handlerType: HTTPResponseEncoder.self)
            encoder.writeAndFlush(NIOAny(ByteBuffer(string: text)), promise: nil)
        }.get()
    }
}
