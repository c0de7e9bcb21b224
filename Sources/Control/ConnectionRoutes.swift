import Datapath
import Hummingbird
import NetPrimitives
import Reactor
import Sandboxes

/// `/v1/connections` and `/v1/sandboxes/{id}/connections`: what lives now.
struct ConnectionRoutes {
    let node: SandboxNode

    private static let defaultCount = 100
    private static let largestCount = 1_000

    /// Adds what lives in one sandbox.
    func addSandbox(to group: RouterGroup<ControlContext>) {
        group.get("{id}/connections") { request, context in
            let id = try context.sandboxID()
            return try await answer(request) { try await node.connections(of: id, order: $0, limit: $1) }
        }
    }

    /// Adds what lives in all of them.
    func add(to group: RouterGroup<ControlContext>) {
        group.get("connections") { request, _ in
            try await answer(request) { await node.connections(order: $0, limit: $1) }
        }
    }

    private func answer(
        _ request: Request,
        _ find: (ConnectionListing.Order, Int) async throws -> ConnectionListing
    ) async throws -> Response {
        let parameters = try QueryParameters(request, known: ["limit", "order"])
        let limit = try parameters.number("limit", in: 1...Self.largestCount) ?? Self.defaultCount
        let text = parameters["order"] ?? ConnectionListing.Order.bytes.rawValue
        guard let order = ConnectionListing.Order(rawValue: text) else {
            let names = ConnectionListing.Order.allCases.map(\.rawValue).joined(separator: ", ")
            throw APIError.parameter("order", "expected \(names)")
        }
        return Answer.json(ConnectionsDocument(try await find(order, limit), at: .current))
    }
}
