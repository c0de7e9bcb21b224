import EgressCore
import EgressPolicy

/// What a node has recorded since it began, counted. Labels are words of ours alone, so their number is bounded whatever
/// sandboxes do.
public struct NodeCounters: Sendable {
    /// What is counted together.
    public struct Label: Hashable, Comparable, Sendable {
        /// What happened.
        public let event: String
        /// Where it was decided; empty when it was no decision.
        public let layer: String
        /// `allow`, `deny`, `report`, or empty.
        public let verdict: String
        /// Why; empty when it was no decision.
        public let reason: String

        /// In the order of the texts.
        public static func < (left: Label, right: Label) -> Bool {
            (left.event, left.layer, left.verdict, left.reason)
                < (right.event, right.layer, right.verdict, right.reason)
        }
    }

    /// How many events there were with each label.
    public private(set) var events: [Label: UInt64] = [:]
    /// Bytes relayed from sandboxes, in connections that have ended.
    public private(set) var bytesUp: UInt64 = 0
    /// Bytes relayed to sandboxes, in connections that have ended.
    public private(set) var bytesDown: UInt64 = 0
    /// Records that are not in the audit trail.
    public internal(set) var lostRecords: UInt64 = 0

    /// Nothing counted yet.
    public init() {}

    mutating func count(_ event: AuditEvent) {
        let verdict = event.verdict.map { $0.isReportOnly ? "report" : $0.action.rawValue } ?? ""
        let label = Label(
            event: event.kind.rawValue,
            layer: event.layer?.rawValue ?? "",
            verdict: verdict,
            reason: event.verdict?.reason.rawValue ?? ""
        )
        events[label, default: 0] += max(event.count ?? 1, 1)
        bytesUp &+= event.bytesUp ?? 0
        bytesDown &+= event.bytesDown ?? 0
    }
}
