import Audit
public import EgressPolicy
public import NetPrimitives
import PolicyDocument

/// Makes the smallest policy under which what was observed would have worked.
///
///     each name, each address ──▶ the base policy, asked ──▶ allows it: nothing to add
///                                                       ──▶ a rule denies it: said, not suggested
///        │ no rule speaks of it
///        ▼
///     often enough? ──▶ one line: that name, those ports ──▶ what is there to look at? ──▶ siblings, where asked
///
/// A name is never widened by itself, and never past a name below which anybody can get one.
public struct PolicySuggester {
    /// What is wanted.
    public struct Options: Sendable {
        /// The policy to build upon; its rules stay, in front. `nil`: a policy that denies everything.
        public var base: Policy?
        /// What the base is called in comments.
        public var baseName = "the policy"
        /// What was asked for less often than this is left out.
        public var threshold: UInt64 = 1
        /// Whether siblings become wildcards.
        public var collapses = false

        /// No base, no threshold, no wildcards.
        public init() {}
    }

    /// A policy of more lines is nobody's to read.
    static let lineLimit = 1_000
    /// So many of a kind are listed.
    static let omissionLimit = 500
    /// So much sent is worth a look by itself; less of it, where more went up than came down.
    static let largeUpload: UInt64 = 10 << 20
    static let upload: UInt64 = 1 << 20
    /// In a record of so many seconds or connections it means something to have been seen once, or late.
    static let longRecordSeconds: Int64 = 600
    static let longRecordConnections: UInt64 = 50

    private let observations: Observations
    private let options: Options
    private let base: CompiledPolicy
    private let time: WallTime

    private init(_ observations: Observations, _ options: Options, _ time: WallTime) {
        self.observations = observations
        var options = options
        options.baseName = CommentText.escaped(options.baseName)
        self.options = options
        self.time = time
        var policy = options.base ?? Policy()
        policy.mode = .enforce
        base = CompiledPolicy(policy)
    }

    /// The policy for `observations`; rules of the base are judged as they are at `time`.
    public static func suggest(
        from observations: Observations,
        options: Options = Options(),
        at time: WallTime
    ) -> SuggestedPolicy {
        let suggester = PolicySuggester(observations, options, time)
        var suggested = SuggestedPolicy(
            base: suggester.base.policy,
            connectionCount: observations.connectionCount,
            queryCount: observations.queryCount,
            span: observations.first.flatMap { first in observations.last.map { first...max(first, $0) } }
        )
        suggester.addLines(to: &suggested)
        suggester.addOthers(to: &suggested)
        return suggested
    }
}

// MARK: - Lines

extension PolicySuggester {
    private func addLines(to suggested: inout SuggestedPolicy) {
        var lines: [SuggestedPolicy.Line] = []
        for (subject, observation) in observations.subjects {
            lines += self.lines(for: subject, observation, &suggested.omissions)
        }
        // Also before the rarest are left out: what is left does not depend on chance.
        Self.sort(&lines)
        if lines.count > Self.lineLimit {
            lines.sort { $0.times > $1.times }
            suggested.hints.append(
                "\(lines.count - Self.lineLimit) more names and addresses were asked for, the rarest; a policy of more "
                    + "than \(Self.lineLimit) lines is not for people: see --threshold, --sandbox and --since"
            )
            lines.removeLast(lines.count - Self.lineLimit)
        }
        review(&lines)
        Self.sort(&lines)
        let siblings = Siblings(of: lines)
        if options.collapses { lines = siblings.collapsed }
        suggested.hints += siblings.hints(isCollapsed: options.collapses)
        suggested.lines = lines
        suggested.omissions.sort { ($0.kind.rawValue, $0.destination) < ($1.kind.rawValue, $1.destination) }
    }

    private static func sort(_ lines: inout [SuggestedPolicy.Line]) {
        lines = lines.map { (line: $0, order: $0.rule.order) }.sorted { $0.order < $1.order }.map(\.line)
    }

    private func lines(
        for subject: Subject,
        _ observation: Observation,
        _ omissions: inout [SuggestedPolicy.Omission]
    ) -> [SuggestedPolicy.Line] {
        guard let sightings = observation.sightings else { return [] }
        func omit(_ kind: SuggestedPolicy.Omission.Kind, _ reason: String, _ rule: Rule? = nil) {
            let destination = subject.text + Self.text(of: observation.services.keys)
            let omission = SuggestedPolicy.Omission(
                kind: kind,
                destination: destination,
                times: sightings.times,
                reason: reason,
                rule: rule
            )
            omissions.append(omission)
        }
        var services = Set(observation.services.keys)
        var remarks: [String] = []
        if services.isEmpty {
            guard let assumed = assumedService(for: subject, observation) else {
                // An answer that no connection followed: an alias, a name without addresses, a look around.
                guard !isResolved(subject) else { return [] }
                let rule = Rule(.allow, subject.target, ports: [Self.https], transport: .tcp)
                omit(.lookup, "only looked up: no connection followed", rule)
                return []
            }
            services = [assumed]
            remarks.append("port assumed: only the name was asked for")
        }
        var denials: Set<String> = []
        services = services.filter { service in
            let verdict = self.verdict(on: subject, service)
            if verdict.action == .deny, let rule = verdict.rule, verdict.reason == .rule {
                denials.insert("\(rule.place) of \(options.baseName)")
            }
            return verdict.action == .deny && verdict.reason != .rule
        }
        // Where the base that is given does not deny it any more, that is what its author wants.
        if let refusal = observation.refusal, refusal.isOperators || options.base == nil, !services.isEmpty {
            denials.insert(refusal.isOperators ? "\(refusal.place), the operator's" : refusal.place)
            services = []
        }
        if !denials.isEmpty { omit(.denied, "denied by \(denials.sorted().joined(separator: " and by "))") }
        guard !services.isEmpty else { return [] }
        guard !observation.isScan else {
            omit(.scan, "more than \(Observation.serviceLimit) ports were tried there")
            return []
        }
        let quic = Service(port: 443, transport: .udp)
        if services.contains(quic), observation.services[Service(port: 443, transport: .tcp)] != nil {
            services.remove(quic)
            let rule = Rule(.allow, subject.target, ports: [Self.https], transport: .udp)
            omit(.alternative, "QUIC (443/udp) shows no name that could be judged; programs fall back to TCP", rule)
        }
        guard sightings.times >= options.threshold else {
            let rules = Self.rules(for: subject, services)
            omit(.rare, "below the threshold of \(options.threshold)", rules.count == 1 ? rules[0] : nil)
            return []
        }
        return Self.rules(for: subject, services).map { rule in
            SuggestedPolicy.Line(
                rule: rule,
                times: sightings.times,
                firstSeen: sightings.first,
                lastSeen: sightings.last,
                sandboxes: sightings.sandboxes,
                hasMoreSandboxes: sightings.hasMoreSandboxes,
                programs: sightings.programs,
                bytesUp: observation.bytesUp,
                bytesDown: observation.bytesDown,
                remarks: remarks,
                review: [],
                collapsed: []
            )
        }
    }

    private static let https = PortRange(443)!

    /// One rule for each transport.
    private static func rules(for subject: Subject, _ services: Set<Service>) -> [Rule] {
        TransportProtocol.allCases.compactMap { transport in
            let ports = services.filter { $0.transport == transport }.map(\.port).sorted()
            guard !ports.isEmpty else { return nil }
            return Rule(.allow, subject.target, ports: ports.compactMap { PortRange($0) }, transport: transport)
        }
    }

    private static func text(of services: some Collection<Service>) -> String {
        guard !services.isEmpty else { return "" }
        let sorted = services.sorted().prefix(5).map { $0.transport == .udp ? "\($0.port)/udp" : "\($0.port)" }
        return " on port \(sorted.joined(separator: ", "))\(services.count > 5 ? ", ..." : "")"
    }

    /// What a program wants that was not told a name's address; `nil` where it was told, or where nobody connects to it.
    private func assumedService(for subject: Subject, _ observation: Observation) -> Service? {
        guard case .name(let name) = subject, observation.refusedQueries > 0, observation.answeredQueries == 0,
            !name.labels.contains(where: { $0.first == UInt8(ascii: "_") }), name.parent != nil
        else { return nil }
        return Service(port: 443, transport: .tcp)
    }

    private func isResolved(_ subject: Subject) -> Bool {
        guard case .name(let name) = subject, case .allow = base.enforcedQuery(name, at: time) else { return false }
        return true
    }

    private func verdict(on subject: Subject, _ service: Service) -> Verdict {
        switch subject {
        case .address(let address):
            return base.decide(
                Flow(name: nil, address: address, port: service.port, transport: service.transport),
                at: time
            )
        case .name(let name):
            return base.decide(
                Flow(name: name, address: nil, port: service.port, transport: service.transport),
                at: time
            )
        }
    }
}

// MARK: - What deserves a look

extension PolicySuggester {
    private func review(_ lines: inout [SuggestedPolicy.Line]) {
        let baseNames = base.policy.rules.filter { $0.action == .allow }.compactMap(\.target.owner).prefix(
            Self.lineLimit
        )
        let lookalikes = Lookalikes(among: lines.compactMap(\.rule.target.exactName) + baseNames)
        let seconds =
            observations.last.flatMap { last in observations.first.map { Self.seconds(from: $0, to: last) } } ?? 0
        let isLong = seconds >= Self.longRecordSeconds || observations.connectionCount >= Self.longRecordConnections
        for index in lines.indices {
            let line = lines[index]
            var grave: [String] = []
            if let name = line.rule.target.exactName {
                if let kind = SharedHosts.kind(of: name) { grave.append(kind.caution) }
                grave += lookalikes.suspicions(of: name)
                if line.rule.transport == .udp {
                    grave.append("datagrams show no name: whatever shares its address is reached on that port, too")
                }
            } else {
                grave.append("an address that no name led to: it may be somebody else's tomorrow")
            }
            let isLarge = line.bytesUp >= Self.largeUpload
            if isLarge || line.bytesUp >= Self.upload && line.bytesUp > line.bytesDown {
                grave.append("\(CommentText.bytes(line.bytesUp)) were sent to it")
            }
            lines[index].isSuspicious = !grave.isEmpty
            var slight: [String] = []
            if isLong, line.times == 1 {
                slight.append("seen once")
            } else if isLong, let first = observations.first, seconds > 0,
                Self.seconds(from: first, to: line.firstSeen) * 10 >= seconds * 9
            {
                slight.append("first seen late")
            }
            lines[index].review = grave + slight
        }
    }

    private static func seconds(from first: WallTime, to last: WallTime) -> Int64 {
        let (difference, overflow) = last.microseconds.subtractingReportingOverflow(first.microseconds)
        return overflow ? 0 : max(difference, 0) / 1_000_000
    }
}

// MARK: - What is left out

extension PolicySuggester {
    private func addOthers(to suggested: inout SuggestedPolicy) {
        let known = CompiledPolicy(suggested.policy)
        // A wildcard may have made a name resolve that was only looked up.
        suggested.omissions.removeAll { omission in
            guard omission.kind == .lookup, case .name(let name)? = omission.rule?.target,
                case .allow = known.enforcedQuery(name, at: time)
            else { return false }
            return true
        }
        for (unhelped, times) in observations.others.sorted(by: { $0.key.destination < $1.key.destination }) {
            if let flow = unhelped.flow, base.decide(flow, at: time).action == .allow { continue }
            suggested.omissions.append(
                .init(kind: .unhelped, destination: unhelped.destination, times: times, reason: unhelped.reason)
            )
        }
        if suggested.omissions.count > Self.omissionLimit {
            let count = suggested.omissions.count - Self.omissionLimit
            suggested.omissions.removeLast(count)
            suggested.hints.append("\(count) more things were asked for and are not suggested")
        }
        if observations.uncounted > 0 {
            suggested.hints.append(
                "\(observations.uncounted) records are about more names than are told apart (\(Observations.limit)): "
                    + "see --sandbox and --since"
            )
        }
        if options.base?.mode == .report {
            suggested.hints.append("\(options.baseName) has mode: report; this policy is enforced")
        }
    }
}

extension Target {
    /// The name it speaks of alone.
    var exactName: DomainName? {
        guard case .name(let name) = self else { return nil }
        return name
    }

    /// The name that it speaks of, or whose names.
    var owner: DomainName? {
        switch self {
        case .name(let name), .subdomains(let name), .label(_, _, let name): name
        case .addresses: nil
        }
    }
}

extension Rule {
    /// What lines are sorted by: names from the right, so that an owner's stand together; then addresses.
    var order: [[UInt8]] {
        switch target {
        case .addresses(let prefix):
            let address = prefix.address
            return [[1], [address.family.rawValue], address.networkBytes, [transport?.rawValue ?? 0]]
        default:
            let labels = (target.owner?.labels ?? []).reversed().map { Array($0) }
            return [[0]] + labels + [[], [transport?.rawValue ?? 0]]
        }
    }
}

extension [[UInt8]] {
    static func < (left: Self, right: Self) -> Bool {
        for (one, other) in zip(left, right) where one != other { return one.lexicographicallyPrecedes(other) }
        return left.count < right.count
    }
}
