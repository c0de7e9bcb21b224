import HTTPTypes
import Hummingbird
import Synchronization

/// The requests that are being answered now, for whoever waits for the last of them.
public final class RequestsUnderWay: Sendable {
    private struct State {
        var next = 0
        var requests: [Int: String] = [:]
    }

    private let state = Mutex(State())

    /// None.
    public init() {}

    /// What was asked for, oldest first, as in `POST /v1/sandboxes/box/pause`.
    public var descriptions: [String] {
        state.withLock { state in state.requests.sorted { $0.key < $1.key }.map(\.value) }
    }

    fileprivate func begin(_ request: Request) -> Int {
        state.withLock { state in
            defer { state.next += 1 }
            state.requests[state.next] = "\(request.method) \(request.uri.path)"
            return state.next
        }
    }

    fileprivate func end(_ number: Int) {
        state.withLock { $0.requests[number] = nil }
    }
}

/// Notes requests until there is an answer. What an answer goes on to send is the reader's to wait for.
struct UnderWayMiddleware<Context: RequestContext>: RouterMiddleware {
    let requests: RequestsUnderWay

    func handle(
        _ request: Request,
        context: Context,
        next: (Request, Context) async throws -> Response
    ) async throws -> Response {
        let number = requests.begin(request)
        defer { requests.end(number) }
        return try await next(request, context)
    }
}
