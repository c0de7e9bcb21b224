import EgressPolicy
import NetPrimitives
import PolicyDocument
import Sandboxes

/// A sandbox as it is answered.
struct SandboxBody: Encodable {
    /// The lifecycle API's status object.
    struct Status: Encodable {
        let state: String
        let reason: String?
        let message: String?
        let lastTransitionAt: String
    }

    let id: String
    let status: Status
    /// Where the network namespace can be entered.
    let networkNamespace: String?
    let policy: Policy
    let revision: UInt64
    let createdAt: String
    let expiresAt: String?
    /// Since when it is locked; absent until then.
    let lockedAt: String?
    let metadata: [String: String]
    /// What the caller accepted that the rules do not hold against.
    let acceptedRisks: [String]
    /// Whether sockets to the outside are opened in its own network, not in the node's.
    let upstreamInside: Bool
    /// Whether somebody is asked about what no rule speaks of.
    let asks: Bool
    /// `passed` once the door was tried from inside.
    let selfTest: String

    init(_ record: SandboxRecord, policy: Policy) {
        id = record.id
        status = Status(
            state: record.state.rawValue,
            reason: record.reason.isEmpty ? nil : record.reason,
            message: record.message.isEmpty ? nil : record.message,
            lastTransitionAt: Timestamp.text(of: record.lastTransitionAt)
        )
        networkNamespace = record.namespace?.path
        self.policy = policy
        revision = record.revision
        createdAt = Timestamp.text(of: record.createdAt)
        expiresAt = record.expiresAt.map(Timestamp.text(of:))
        lockedAt = record.lockedAt.map(Timestamp.text(of:))
        metadata = record.metadata
        acceptedRisks =
            (record.acceptsRawSockets ? ["raw-sockets"] : []) + (record.acceptsSidePaths ? ["side-paths"] : [])
        upstreamInside = record.upstreamInside != nil
        asks = record.ask != nil
        selfTest =
            switch record.state {
            case .running, .paused, .terminated: "passed"
            case .pending: "pending"
            case .failed: "failed"
            }
    }
}

/// A page of sandboxes.
struct SandboxPage: Encodable {
    let items: [SandboxBody]
    let nextCursor: String?
}

/// A policy as it is answered, in the shape of OpenSandbox's sidecar.
struct PolicyBody: Encodable {
    let status = "ok"
    /// `deny_all`, `allow_all` or `enforcing`.
    let mode: String
    /// How it is enforced: every name, address and packet.
    let enforcementMode = "dns+nft"
    let policy: Policy
    let revision: UInt64
    let warnings: [APIError.Detail]?

    private enum CodingKeys: CodingKey { case status, mode, enforcementMode, policy, revision, warnings }

    init(_ policy: Policy, revision: UInt64, warnings: [Problem] = []) {
        mode =
            switch (policy.unphased.rules.isEmpty, policy.defaultAction) {
            case (true, .deny): "deny_all"
            case (true, .allow): "allow_all"
            case (false, _): "enforcing"
            }
        self.policy = policy
        self.revision = revision
        self.warnings =
            warnings.isEmpty
            ? nil : warnings.map { .init(path: $0.path, message: $0.message, line: $0.line, column: $0.column) }
    }
}
