public import EgressCore
import EgressPolicy
import NetPrimitives

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

    /// What people count: names, however often one is asked for; connections; packets of other protocols.
    struct Total: Hashable, Sendable {
        /// Names that were not looked up.
        var names: Set<String> = []
        /// Queries for names beyond the limit, of which more than one may be for the same.
        var otherQueries: UInt64 = 0
        var connections: UInt64 = 0
        var packets: UInt64 = 0
    }

    private var indices: [Kind: Int] = [:]
    private var entries: [Entry] = []
    /// Refusals of kinds beyond the limit.
    private(set) var others: UInt64 = 0
    /// What was refused.
    private(set) var refused = Total()
    /// What would have been refused but for report mode.
    private(set) var passed = Total()

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
        add(event, count, to: verdict.isReportOnly ? \.passed : \.refused)
    }

    private mutating func add(_ event: AuditEvent, _ count: UInt64, to total: WritableKeyPath<Self, Total>) {
        if event.layer == .dns {
            let name = event.host ?? ""
            if self[keyPath: total].names.count < Self.limit || self[keyPath: total].names.contains(name) {
                self[keyPath: total].names.insert(name)
            } else {
                self[keyPath: total].otherQueries &+= count
            }
        } else if event.ipProtocol ?? TransportProtocol.tcp.rawValue == TransportProtocol.tcp.rawValue {
            self[keyPath: total].connections &+= count
        } else {
            self[keyPath: total].packets &+= count
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
