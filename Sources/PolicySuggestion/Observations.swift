public import Audit
import EgressPolicy
import NetPrimitives

/// What audit records tell of where sandboxes went, or wanted to: counted as they are read.
///
///     record ──▶ a connection or query? ──▶ let through, or refused by the policy? ──▶ its name, else its address
///                                              │ no: a guard range, no server name …
///                                              ▼
///                                           noted with the reason
///
/// The sandbox chose the names, and how many there are: only well-formed ones are kept, so many of them, and every count
/// stops at the highest number.
public struct Observations: Sendable {
    /// How many names and addresses are told apart.
    static let limit = 20_000
    /// How many things that no rule helps are told apart.
    private static let noteLimit = 200
    private static let sandboxLimit = 10_000

    private(set) var subjects: [Subject: Observation] = [:]
    /// What no rule helps, or should.
    private(set) var others: [Unhelped: UInt64] = [:]
    /// Records about names and addresses beyond the limit.
    private(set) var uncounted: UInt64 = 0
    /// Connections and queries that were counted.
    private(set) var connectionCount: UInt64 = 0
    private(set) var queryCount: UInt64 = 0
    private(set) var first: WallTime?
    private(set) var last: WallTime?
    /// The program that a sandbox was made for, where the record says so.
    private var programs: [String: String] = [:]
    private let guards = GuardRanges()

    /// Something that no rule helps, or should.
    struct Unhelped: Hashable, Sendable {
        let destination: String
        let reason: String
        /// Where it is a guarded address, what a rule of the base policy may allow all the same.
        var flow: Flow?
    }

    /// The word before the program's name in the record of a run's beginning.
    public static let programPrefix = "command: "

    /// Observations of nothing.
    public init() {}

    /// Whether nothing was asked for.
    public var isEmpty: Bool { first == nil }

    /// Takes a record.
    public mutating func observe(_ record: AuditLine) {
        if record.event == "sandbox.attached", let words = record.words, words.hasPrefix(Self.programPrefix),
            programs.count < Self.sandboxLimit || programs[record.sandbox] != nil
        {
            programs[record.sandbox] = String(words.dropFirst(Self.programPrefix.count))
        }
        guard let fate = Fate(record) else { return }
        first = min(first ?? record.time, record.time)
        last = max(last ?? record.time, record.time)
        let name = record.host.flatMap { try? DomainName($0) }
        let address = record.host.flatMap { IPAddress($0) } ?? record.address.flatMap { IPAddress($0) }
        guard record.host == nil || name != nil || record.host.flatMap({ IPAddress($0) }) != nil else {
            note(record, "not a host name: no rule opens that")
            return
        }
        if record.event.hasPrefix("dns.") {
            guard let name else { return note(record, fate) }
            observeQuery(record, name, fate)
        } else {
            observeConnection(record, name, address, fate)
        }
    }

    private mutating func observeQuery(_ record: AuditLine, _ name: DomainName, _ fate: Fate) {
        if case .unhelped = fate { return note(record, fate) }
        queryCount = queryCount.addingClamped(record.times)
        update(.name(name), record) { observation, sightings in
            sightings(&observation.queries)
            if record.verdict == "allow" {
                observation.answeredQueries = observation.answeredQueries.addingClamped(record.times)
            } else {
                observation.refusedQueries = observation.refusedQueries.addingClamped(record.times)
            }
            if case .refused(let refusal) = fate { observation.refusal = observation.refusal ?? refusal }
        }
    }

    private mutating func observeConnection(
        _ record: AuditLine,
        _ name: DomainName?,
        _ address: IPAddress?,
        _ fate: Fate
    ) {
        guard let port = record.port.flatMap({ UInt16(exactly: $0) }), port > 0,
            let transport = TransportProtocol(recorded: record.protocolName)
        else {
            if record.event != "connection.closed" {
                note(record, "a policy can allow only TCP and UDP, on a port")
            }
            return
        }
        // What showed no server name is the address's matter, whatever name led there.
        if case .unhelped(let reason) = fate, reason != .noSNI || record.host != nil { return note(record, fate) }
        if let address, guards.contains(address) {
            let flow = Flow(name: name, address: address, port: port, transport: transport)
            return note(record, Reason.guardRange.advice ?? "a guard range", flow)
        }
        guard let subject = name.map(Subject.name) ?? address.map(Subject.address) else { return }
        if record.event == "connection.closed" {
            guard var observation = subjects[subject] else { return }
            observation.bytesUp = observation.bytesUp.addingClamped(record.bytesUp ?? 0)
            observation.bytesDown = observation.bytesDown.addingClamped(record.bytesDown ?? 0)
            subjects[subject] = observation
            return
        }
        connectionCount = connectionCount.addingClamped(record.times)
        let service = Service(port: port, transport: transport)
        update(subject, record) { observation, sightings in
            sightings(&observation.connections)
            if observation.services[service] != nil || observation.services.count < Observation.serviceLimit {
                observation.services[service] = (observation.services[service] ?? 0).addingClamped(record.times)
            } else {
                observation.isScan = true
            }
            if case .refused(let refusal) = fate { observation.refusal = observation.refusal ?? refusal }
        }
    }

    private mutating func update(
        _ subject: Subject,
        _ record: AuditLine,
        _ change: (inout Observation, (inout Sightings?) -> Void) -> Void
    ) {
        guard subjects[subject] != nil || subjects.count < Self.limit else {
            uncounted = uncounted.addingClamped(record.times)
            return
        }
        let program = programs[record.sandbox]
        change(&subjects[subject, default: Observation()]) { sightings in
            var changed = sightings ?? Sightings(at: record.time)
            changed.add(record.times, at: record.time, sandbox: record.sandbox, program: program)
            sightings = changed
        }
    }

    private mutating func note(_ record: AuditLine, _ fate: Fate) {
        guard case .unhelped(let reason) = fate else { return }
        note(record, reason.advice ?? reason.phrase)
    }

    private mutating func note(_ record: AuditLine, _ reason: String, _ flow: Flow? = nil) {
        guard record.event != "connection.closed" else { return }
        let unhelped = Unhelped(destination: record.destination, reason: reason, flow: flow)
        if others[unhelped] != nil || others.count < Self.noteLimit {
            others[unhelped] = (others[unhelped] ?? 0).addingClamped(record.times)
        } else {
            uncounted = uncounted.addingClamped(record.times)
        }
    }
}

/// What became of a connection or query, as far as a policy is concerned.
private enum Fate {
    /// Let through, or refused as no rule spoke of it.
    case wanted
    /// A rule refused it, or would have.
    case refused(Observation.Refusal)
    /// It was, or would have been, refused for something that no rule changes.
    case unhelped(Reason)

    /// `nil` for records of other things, and for refusals that have nothing to do with where it went.
    init?(_ record: AuditLine) {
        guard record.event.hasPrefix("dns.") || record.event.hasPrefix("connection.") else { return nil }
        let isRefusal = record.verdict == "deny" || record.isReportOnly
        guard isRefusal else {
            self = .wanted
            return
        }
        switch record.reason.flatMap(Reason.init(rawValue:)) {
        case .default?, .expiredRule?, .askDeadline?, .askLimit?: self = .wanted
        case .rule?:
            guard let rule = record.rule, rule.action == "deny" else {
                self = .wanted
                return
            }
            let source = rule.source.map { CommentText.escaped($0, limit: 40) }
            let target = CommentText.escaped(rule.target, limit: 80)
            self = .refused(
                .init(place: "\(source ?? "egress")[\(rule.index)] deny \(target)", isOperators: source != nil)
            )
        case .paused?, .unresolvable?, .upstreamFailed?, .connectionLimit?, .queryLimit?, .clientLimit?, .pinLimit?,
            .flowLimit?, .deadline?, nil:
            return nil
        case let reason?: self = .unhelped(reason)
        }
    }
}

extension TransportProtocol {
    fileprivate init?(recorded name: String?) {
        switch name {
        case "tcp": self = .tcp
        case "udp": self = .udp
        default: return nil
        }
    }
}

extension AuditLine {
    /// How many connections, queries or packets it stands for.
    fileprivate var times: UInt64 { max(count ?? 1, 1) }

    /// Where it went, for people: `evil.example:443`, `203.0.113.5:53/udp`.
    fileprivate var destination: String {
        var place = host.map { CommentText.escaped($0, limit: 80) } ?? ""
        if let address = address.map({ CommentText.escaped($0, limit: 50) }), address != place {
            place = place.isEmpty ? address : "\(place) at \(address)"
        }
        if place.isEmpty { place = "something" }
        guard !event.hasPrefix("dns.") else { return "the query for \(place)" }
        if let port { place += " on port \(port)" }
        if let name = protocolName, name != "tcp" { place += "/\(CommentText.escaped(name, limit: 10))" }
        return place
    }
}
