import EgressPolicy
import FoundationEssentials
import HTTPTypes
import Hummingbird
import NetPrimitives
import PolicyDocument
import Reactor
import Sandboxes

/// `/v1/sandboxes`: their life.
struct SandboxRoutes {
    let node: SandboxNode

    private static let defaultPageSize = 1_000
    private static let longestPage = 10_000

    func add(to group: RouterGroup<ControlContext>) {
        group.post { request, _ in try await create(request) }
        group.get { request, _ in try await list(request) }
        group.get("{id}") { _, context in
            try await answer(try await node.record(of: try context.sandboxID()))
        }
        group.get("{id}/activity") { _, context in
            let activity = try await node.activity(of: try context.sandboxID())
            return Answer.json(["connections": activity.connections, "pins": activity.pins])
        }
        group.delete("{id}") { _, context in
            try await node.release(try context.sandboxID())
            return Answer.empty(.noContent)
        }
        group.post("{id}/pause") { _, context in
            try await answer(try await node.pause(try context.sandboxID()))
        }
        group.post("{id}/resume") { _, context in
            try await answer(try await node.resume(try context.sandboxID()))
        }
        group.post("{id}/retry") { _, context in
            let cause = await RequestCaller(context).words
            return try await answer(try await node.retry(try context.sandboxID(), "tried again, asked for \(cause)"))
        }
        group.post("{id}/lock") { _, context in
            let cause = await RequestCaller(context).words
            return try await answer(try await node.lock(try context.sandboxID(), "asked for \(cause)"))
        }
        group.post("{id}/renew-expiration") { request, context in
            try await renew(try context.sandboxID(), request)
        }
    }

    private func answer(_ record: SandboxRecord, status: HTTPResponse.Status = .ok) async throws -> Response {
        let policy = await node.effectivePolicy(of: record)
        return Answer.json(
            SandboxBody(record, policy: policy),
            status: status,
            headers: [.eTag: PolicyRoutes.tag(record.revision)]
        )
    }

    private func create(_ request: Request) async throws -> Response {
        let wanted = try CreateRequest.load(bytes: try await request.bytes(), file: "body", now: .current)
        let (record, isNew) = try await node.create(wanted)
        return try await answer(record, status: isNew ? .created : .ok)
    }

    private func list(_ request: Request) async throws -> Response {
        let parameters = try QueryParameters(request, known: ["limit", "cursor", "state"])
        let limit = try parameters.number("limit", in: 1...Self.longestPage) ?? Self.defaultPageSize
        let wanted = try states(parameters["state"])
        let after = parameters["cursor"]
        var items: [SandboxBody] = []
        var last: String?
        var hasMore = false
        for record in await node.records() where wanted.contains(record.state) {
            if let after, record.id <= after { continue }
            guard items.count < limit else {
                hasMore = true
                break
            }
            items.append(SandboxBody(record, policy: await node.effectivePolicy(of: record)))
            last = record.id
        }
        return Answer.json(SandboxPage(items: items, nextCursor: hasMore ? last : nil))
    }

    /// Those that live, all, or those in one state.
    private func states(_ text: String?) throws -> Set<SandboxRecord.State> {
        guard let text else { return Set(SandboxRecord.State.allCases).subtracting([.terminated]) }
        if text == "all" { return Set(SandboxRecord.State.allCases) }
        if let state = SandboxRecord.State.allCases.first(where: { $0.rawValue.lowercased() == text.lowercased() }) {
            return [state]
        }
        let names = SandboxRecord.State.allCases.map(\.rawValue).joined(separator: ", ")
        throw APIError.parameter("state", "expected all, \(names)")
    }

    private func renew(_ id: String, _ request: Request) async throws -> Response {
        let time = try CreateRequest.loadExpiry(bytes: try await request.bytes(), file: "body", now: .current)
        return try await answer(try await node.renew(id, until: time))
    }
}
