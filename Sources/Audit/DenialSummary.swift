public import EgressCore
import EgressPolicy

/// What was refused, how often and why: counted as it happens, shown as a table at the end of a run. In report mode
/// it counts what would have been refused.
public struct DenialSummary: Sendable {
    /// How many kinds of refusals are told apart; a sandbox chooses names and ports, so memory needs a bound.
    static let limit = 1_000

    /// What makes two refusals the same.
    struct Kind: Hashable, Sendable {
        var destination: Destination
        var layer: AuditEvent.Layer?
        var reason: Reason
        var rule: RuleReference?
        var isReportOnly: Bool
    }

    /// One line of the table.
    struct Entry: Hashable, Sendable {
        var kind: Kind
        var count: UInt64
    }

    private var indices: [Kind: Int] = [:]
    private var entries: [Entry] = []
    /// Refusals of kinds beyond the limit.
    private(set) var others: UInt64 = 0

    /// A summary of nothing.
    public init() {}

    /// Counts `event` if it is a refusal or, in report mode, what would have been one.
    public mutating func observe(_ event: AuditEvent) {
        guard let verdict = event.verdict, event.tellsOfRefusal else { return }
        let count = event.count ?? 1
        let kind = Kind(
            destination: Destination(of: event),
            layer: event.layer,
            reason: verdict.reason,
            rule: verdict.rule,
            isReportOnly: verdict.isReportOnly
        )
        if let index = indices[kind] {
            entries[index].count &+= count
        } else if entries.count < Self.limit {
            indices[kind] = entries.count
            entries.append(Entry(kind: kind, count: count))
        } else {
            others &+= count
        }
    }

    /// Whether nothing was refused.
    public var isEmpty: Bool { entries.isEmpty }

    /// The most frequent first; equally frequent ones in the order they appeared.
    var ranked: [Entry] {
        entries.enumerated().sorted { ($1.element.count, $0.offset) < ($0.element.count, $1.offset) }.map(\.element)
    }
}

extension AuditEvent {
    /// Whether it is about a refusal or, in report mode, what would have been one; the end of what report mode let through
    /// is not another one.
    var tellsOfRefusal: Bool {
        guard let verdict else { return false }
        return verdict.action == .deny || verdict.isReportOnly && kind != .connectionClosed
    }
}
