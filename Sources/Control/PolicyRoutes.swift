import EgressPolicy
import HTTPTypes
import Hummingbird
import NetPrimitives
import PolicyDocument
import Reactor
import Sandboxes

/// `/v1/sandboxes/{id}/policy`: reading and changing it, with the bodies of OpenSandbox's `/policy`.
struct PolicyRoutes {
    let node: SandboxNode

    func add(to group: RouterGroup<some RequestContext>) {
        group.get("{id}/policy") { _, context in
            let (policy, record) = try await node.policy(of: try context.sandboxID())
            return answer(policy, record)
        }
        group.put("{id}/policy") { request, context in
            try await replace(try context.sandboxID(), request)
        }
        group.post("{id}/policy") { request, context in
            try await replace(try context.sandboxID(), request)
        }
        group.patch("{id}/policy") { request, context in
            try await patch(try context.sandboxID(), request)
        }
        group.delete("{id}/policy") { request, context in
            try await delete(try context.sandboxID(), request)
        }
    }

    /// The entity tag of a revision.
    static func tag(_ revision: UInt64) -> String { "\"\(revision)\"" }

    private func answer(_ policy: Policy, _ record: SandboxRecord, _ warnings: [Problem] = []) -> Response {
        Answer.json(
            PolicyBody(policy, revision: record.revision, warnings: warnings),
            headers: [.eTag: Self.tag(record.revision)]
        )
    }

    /// The revision that If-Match speaks of (RFC 9110 13.1.1); `nil` for any.
    private func expected(_ request: Request) throws -> UInt64? {
        guard let text = request.headers[.ifMatch], text != "*" else { return nil }
        guard text.count > 2, text.first == "\"", text.last == "\"", let revision = UInt64(text.dropFirst().dropLast())
        else { throw APIError.parameter("If-Match", "expected one entity tag, such as \"7\", or *") }
        return revision
    }

    /// A whole policy takes the place of the one in force.
    private func replace(_ id: String, _ request: Request) async throws -> Response {
        let document = try PolicyDocument.load(
            bytes: try await request.bytes(),
            format: .json,
            file: "body",
            now: .current
        )
        let (policy, record) = try await node.changePolicy(of: id, expecting: try expected(request)) { _ in
            document.policy
        }
        return answer(policy, record, document.warnings)
    }

    /// The rule before which rules are to be put, when the request names one.
    private func position(_ request: Request) throws -> Int? {
        guard let text = try QueryParameters(request, known: ["before"])["before"] else { return nil }
        guard let number = Int(text), number >= 0 else {
            throw APIError.parameter("before", "expected the index of a rule, or how many there are")
        }
        return number
    }

    /// Rules go in front, and take the place of rules with the same target. With `before` they go where it says, and
    /// take nobody's place.
    private func patch(_ id: String, _ request: Request) async throws -> Response {
        let (rules, warnings) = try PolicyDocument.loadRules(
            bytes: try await request.bytes(),
            format: .json,
            file: "body",
            now: .current
        )
        let position = try position(request)
        let expected = try expected(request)
        guard position == nil || expected != nil else {
            throw APIError.parameter("If-Match", "needed with before: a rule's index holds for one revision")
        }
        let (policy, record) = try await node.changePolicy(of: id, expecting: expected) { policy in
            var changed = policy
            if let position {
                guard position <= policy.rules.count else {
                    throw APIError.parameter("before", "expected 0...\(policy.rules.count)")
                }
                changed.rules.insert(contentsOf: rules, at: position)
                return changed
            }
            let targets = Set(rules.map(\.target))
            changed.remove(targets)
            changed.rules = rules + changed.rules
            return changed
        }
        return answer(policy, record, warnings)
    }

    /// Rules with these targets go, also those of the set-up phase.
    private func delete(_ id: String, _ request: Request) async throws -> Response {
        let targets = Set(
            try PolicyDocument.loadTargets(bytes: try await request.bytes(), format: .json, file: "body")
        )
        let (policy, record) = try await node.changePolicy(of: id, expecting: try expected(request)) { policy in
            var changed = policy
            changed.remove(targets)
            return changed
        }
        return answer(policy, record)
    }
}

extension Policy {
    /// Removes the rules with these targets, those of the set-up phase included; a phase without rules goes with them.
    fileprivate mutating func remove(_ targets: Set<Target>) {
        rules.removeAll { targets.contains($0.target) }
        setup?.rules.removeAll { targets.contains($0.target) }
        if setup?.rules.isEmpty == true { setup = nil }
    }
}
