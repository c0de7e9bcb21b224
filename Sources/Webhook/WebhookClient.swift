import AsyncHTTPClient
import NIOCore
import NIOHTTP1

/// Posts batches to an endpoint, one at a time. What it is told by the server's status alone counts: no redirect is
/// followed, for what is told is meant for whoever the operator named.
struct WebhookClient {
    /// What became of a request.
    enum Outcome {
        /// The server has taken it.
        case delivered
        /// The server says that this very request will not do.
        case refused(String)
        /// The server could not be reached, or could not take it now.
        case failed(String)
    }

    /// How long connecting, and how long a whole request may take.
    private static let connectPatience = TimeAmount.seconds(5)
    private static let patience = TimeAmount.seconds(10)
    /// A server may say something; it is read so that the connection can be used again.
    private static let longestAnswer = 16 << 10

    private let endpoint: WebhookEndpoint
    private let client: HTTPClient

    init(_ endpoint: WebhookEndpoint) {
        self.endpoint = endpoint
        var configuration = HTTPClient.Configuration(
            redirectConfiguration: .disallow,
            timeout: .init(connect: Self.connectPatience, read: Self.patience)
        )
        configuration.httpVersion = .http1Only
        configuration.connectionPool.concurrentHTTP1ConnectionsPerHostSoftLimit = 1
        // Whoever posts waits between its tries by itself, and wants to know of each.
        configuration.connectionPool.retryConnectionEstablishment = false
        client = HTTPClient(eventLoopGroupProvider: .singleton, configuration: configuration)
    }

    /// Closes its connections. Nothing is posted afterwards.
    func close() {
        // What is being connected to may take its time; nobody has to wait for that.
        Task { [client] in try? await client.shutdown() }
    }

    /// Posts a body of JSON.
    func post(_ body: [UInt8]) async -> Outcome {
        var request = HTTPClientRequest(url: endpoint.url)
        request.method = .POST
        request.headers.add(name: "Content-Type", value: "application/json")
        request.headers.add(name: "User-Agent", value: "sandgate")
        if let signature = endpoint.signature(of: body) {
            request.headers.add(name: "X-Sandgate-Signature", value: signature)
        }
        request.body = .bytes(ByteBuffer(bytes: body))
        do {
            let response = try await client.execute(request, timeout: Self.patience)
            let status = response.status
            await finish(response)
            switch status.code {
            case 200..<300: return .delivered
            case 400, 413, 422: return .refused("status \(status.code)")
            default: return .failed("status \(status.code)")
            }
        } catch {
            return .failed("\(error)")
        }
    }

    /// Reads what a server says besides its status. What is too long, or too slow, ends the connection.
    private func finish(_ response: HTTPClientResponse) async {
        let deadline = ContinuousClock.now + .seconds(1)
        var count = 0
        do {
            for try await chunk in response.body {
                count += chunk.readableBytes
                guard count <= Self.longestAnswer, ContinuousClock.now < deadline else { return }
            }
        } catch {
            // The status has been said.
        }
    }
}
