import Audit
import Datapath
import EgressCore
import EgressPolicy
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
        return Answer.json(ConnectionsBody(try await find(order, limit), at: .current))
    }
}

/// Live connections as they are answered.
private struct ConnectionsBody: Encodable {
    let time: String
    let items: [ConnectionBody]
    let total: Int
    /// How many of them are not among the items.
    let omitted: Int
    let bytesUp: UInt64
    let bytesDown: UInt64

    init(_ listing: ConnectionListing, at time: WallTime) {
        self.time = Timestamp.text(of: time)
        items = listing.connections.map(ConnectionBody.init)
        total = listing.total
        omitted = listing.total - listing.connections.count
        bytesUp = listing.bytesUp
        bytesDown = listing.bytesDown
    }
}

/// A live connection as it is answered; what an audit record says as well is called as it is there.
private struct ConnectionBody: Encodable {
    struct Rule: Encodable {
        let index: Int
        let action: String
        let target: String
        let source: String?
    }

    let sandbox: String
    let id: String
    let state: String
    let via: String
    let `protocol`: String
    let layer: String?
    let host: String?
    let ip: String?
    let port: UInt16?
    let since: String
    let bytesUp: UInt64
    let bytesDown: UInt64
    let reason: String?
    let rule: Rule?
    let report: Bool?

    init(_ connection: LiveConnection) {
        let transport = "\(connection.transport)"
        sandbox = connection.sandbox
        id = "\(transport)-\(connection.number)"
        state = connection.state.rawValue
        via = connection.opening.rawValue
        `protocol` = transport
        layer = connection.layer?.rawValue
        host = connection.name.map { "\($0)" }
        ip = connection.address.map { "\($0)" }
        port = connection.port
        since = Timestamp.text(of: connection.since)
        bytesUp = connection.bytesUp
        bytesDown = connection.bytesDown
        reason = connection.verdict?.reason.rawValue
        rule = connection.verdict?.rule.map { rule in
            Rule(
                index: rule.index,
                action: rule.action.rawValue,
                target: "\(rule.target)",
                source: rule.source.listName
            )
        }
        report = connection.verdict?.isReportOnly == true ? true : nil
    }
}
