import Audit
public import Datapath
import EgressCore
import EgressPolicy
public import NetPrimitives

/// Live connections as they are told over the API: what `GET /v1/connections` answers.
public struct ConnectionsDocument: Codable, Sendable {
    /// When it was answered (RFC 3339).
    public let time: String
    /// Those that are listed.
    public let items: [ConnectionDocument]
    /// How many there are.
    public let total: Int
    /// How many of them are not among the items.
    public let omitted: Int
    /// Bytes from the sandboxes, of all there are.
    public let bytesUp: UInt64
    /// Bytes to the sandboxes, of all there are.
    public let bytesDown: UInt64

    /// The document of a listing that was made at `time`.
    public init(_ listing: ConnectionListing, at time: WallTime) {
        self.time = Timestamp.text(of: time)
        items = listing.connections.map(ConnectionDocument.init)
        total = listing.total
        omitted = listing.total - listing.connections.count
        bytesUp = listing.bytesUp
        bytesDown = listing.bytesDown
    }
}

/// A live connection or datagram flow as it is told; what an audit record says as well is called as it is there.
public struct ConnectionDocument: Codable, Sendable {
    /// The rule that it stands on.
    public struct Rule: Codable, Sendable {
        /// Its position in its list, from 0.
        public let index: Int
        /// `allow` or `deny`.
        public let action: String
        /// What it speaks of.
        public let target: String
        /// The list, where it is not the policy's `egress`.
        public let source: String?
    }

    /// The sandbox.
    public let sandbox: String
    /// Its own name among the sandbox's, while the daemon's process lives: `tcp-12`.
    public let id: String
    /// How far it is; see ``LiveConnection``.
    public let state: String
    /// How it came.
    public let via: String
    /// `tcp` or `udp`.
    public let `protocol`: String
    /// What it was judged by.
    public let layer: String?
    /// The name that it is for.
    public let host: String?
    /// The address that it goes to.
    public let ip: String?
    /// The port that it goes to.
    public let port: UInt16?
    /// When it began (RFC 3339).
    public let since: String
    /// Bytes from the sandbox.
    public let bytesUp: UInt64
    /// Bytes to the sandbox.
    public let bytesDown: UInt64
    /// Why it is allowed.
    public let reason: String?
    /// The rule that allows it.
    public let rule: Rule?
    /// `true` when only report mode lets it through.
    public let report: Bool?

    /// The document of a connection.
    public init(_ connection: LiveConnection) {
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
