public import EgressPolicy
public import NetPrimitives

/// What somebody is asked about one sandbox: names that no rule speaks of, while what wants them waits. It has no clock and
/// no socket.
///
///     asked ─▶ open ─▶ the policy speaks of it now ─▶ whoever waits is judged again
///       │       │ └──▶ answered no, or nobody answers in time ─▶ denied, and not asked again for a while
///       │       ▼
///       │   joined by whoever else wants the same
///       ▼
///     too many open, too many lately, denied lately ─▶ denied at once
///
/// A flood of questions is a denial: what is held here is bounded by ``Limits``, whoever asks.
public struct Questions: Sendable {
    /// The bounds for one sandbox.
    public struct Limits: Hashable, Sendable {
        /// The most questions that wait for an answer.
        public var maximumOpen = 16
        /// The most connections and queries that wait for the answer to one of them.
        public var maximumWaiters = 64
        /// The most questions that are asked in a minute.
        public var maximumPerMinute = 30
        /// How long a question waits for its answer, in seconds.
        public var deadlineSeconds: UInt64 = 30
        /// For how long what was denied is not asked again, in seconds.
        public var silenceSeconds: UInt64 = 300
        /// For how long connections may begin on what was allowed once, in seconds.
        public var onceSeconds: UInt64 = 30

        /// The defaults.
        public init() {}
    }

    /// What a question is about: a name, on the ports of the web, or on one other.
    ///
    /// A DNS query names no port; and most of what follows it is on these two. So a query, a CONNECT to port 443 and a
    /// request on port 80 ask the same.
    public struct Subject: Hashable, Sendable {
        /// The ports of the web.
        public static let webPorts = [80, 443].compactMap { PortRange($0) }

        /// The name.
        public let name: DomainName
        /// The TCP ports that are asked for.
        public let ports: [PortRange]

        /// What a connection to `port` asks; without one, what a query does.
        public init(_ name: DomainName, port: PortRange? = nil) {
            self.name = name
            ports = port.map { Self.webPorts.contains($0) ? Self.webPorts : [$0] } ?? Self.webPorts
        }

        /// The rule that a yes makes, on `ports` in place of those that were asked for if there are any.
        public func rule(onPorts ports: [PortRange] = [], expiresAt: WallTime? = nil, comment: String?) -> Rule {
            Rule(
                .allow,
                .name(name),
                ports: ports.isEmpty ? self.ports : ports,
                transport: .tcp,
                expiresAt: expiresAt,
                comment: comment
            )
        }

        /// Whether `policy` leaves any of it open: only then is there anything to ask.
        public func isOpen(in policy: CompiledPolicy, at time: WallTime) -> Bool {
            switch policy.decideQuery(name, at: time) {
            case .deny(let verdict), .noData(let verdict): verdict.leavesOpen
            case .allow:
                ports.contains { port in
                    let flow = Flow(name: name, address: nil, port: port.lower, transport: .tcp)
                    return policy.decide(flow, at: time).leavesOpen
                }
            }
        }
    }

    /// One that waits for an answer.
    public struct Question: Hashable, Sendable {
        /// Its number among the sandbox's, from 1.
        public let number: UInt64
        /// What it is about.
        public let subject: Subject
        /// When it was asked.
        public let askedAt: WallTime
        /// When it is denied unless somebody answers.
        public let deadline: MonotonicTime
        /// The same by the wall clock, for people.
        public let expiresAt: WallTime
        /// How many connections and queries have come to wait for the answer.
        public fileprivate(set) var waiters = 1
    }

    /// What becomes of who asks.
    public enum Reception: Hashable, Sendable {
        /// It waits for the answer to this question, which is new if `isNew`.
        case waits(Question, isNew: Bool)
        /// It is denied at once.
        case denied(Reason)
    }

    private struct Denial {
        let reason: Reason
        let until: MonotonicTime
    }

    /// The bounds.
    public let limits: Limits
    private var open: [Subject: Question] = [:]
    private var denials: [Subject: Denial] = [:]
    private var lastNumber: UInt64 = 0
    /// When the questions of the last minute were asked, oldest first.
    private var recent: [MonotonicTime] = []

    private static let minute: UInt64 = 60

    /// Nothing asked yet.
    public init(limits: Limits = Limits()) {
        self.limits = limits
    }
}

extension Questions {
    /// Somebody wants `subject`, which the policy says nothing of.
    public mutating func ask(_ subject: Subject, at now: MonotonicTime, _ wallTime: WallTime) -> Reception {
        if var question = open[subject] {
            guard question.waiters < limits.maximumWaiters else { return .denied(.askLimit) }
            question.waiters += 1
            open[subject] = question
            return .waits(question, isNew: false)
        }
        if let denial = denials[subject] {
            if now < denial.until { return .denied(denial.reason) }
            denials[subject] = nil
        }
        recent.removeAll { now.seconds(since: $0) >= Self.minute }
        guard open.count < limits.maximumOpen, recent.count < limits.maximumPerMinute else {
            return .denied(.askLimit)
        }
        recent.append(now)
        lastNumber += 1
        let question = Question(
            number: lastNumber,
            subject: subject,
            askedAt: wallTime,
            deadline: now.advanced(bySeconds: limits.deadlineSeconds),
            expiresAt: wallTime.advanced(bySeconds: Int64(clamping: limits.deadlineSeconds))
        )
        open[subject] = question
        return .waits(question, isNew: true)
    }

    /// Those that wait for an answer, oldest first.
    public var all: [Question] { open.values.sorted { $0.number < $1.number } }

    /// The open question with this number.
    public subscript(number: UInt64) -> Question? { open.values.first { $0.number == number } }

    /// When the next one is denied by itself.
    public var nextDeadline: MonotonicTime? { open.values.map(\.deadline).min() }

    /// Somebody said no. `nil` when it is no longer open.
    @discardableResult
    public mutating func deny(_ number: UInt64, at now: MonotonicTime) -> Question? {
        guard let question = close(number) else { return nil }
        remember(question.subject, .askDenied, at: now)
        return question
    }

    /// The question has come to nothing: the policy speaks of its subject, or nothing is judged any more.
    @discardableResult
    public mutating func close(_ number: UInt64) -> Question? {
        guard let question = self[number] else { return nil }
        open[question.subject] = nil
        return question
    }

    /// Whoever waits is sent to be judged again, and comes back to what is open still.
    public mutating func sendAll() {
        for subject in open.keys { open[subject]?.waiters = 0 }
    }

    /// Takes out those that nobody answered in time, oldest first.
    public mutating func expire(at now: MonotonicTime) -> [Question] {
        let expired = all.filter { $0.deadline <= now }
        for question in expired {
            open[question.subject] = nil
            remember(question.subject, .askDeadline, at: now)
        }
        return expired
    }

    /// What it remembers is bounded by how much it asks: so many in a minute, for so many minutes.
    private mutating func remember(_ subject: Subject, _ reason: Reason, at now: MonotonicTime) {
        denials = denials.filter { now < $0.value.until }
        denials[subject] = Denial(reason: reason, until: now.advanced(bySeconds: limits.silenceSeconds))
    }

    /// How many denials are remembered.
    var rememberedCount: Int { denials.count }
}

extension Verdict {
    /// Whether it is a denial for want of a rule in force: what somebody may be asked about. What a rule denies, an
    /// operator's or the policy's, and what is guarded or malformed, is never asked.
    public var leavesOpen: Bool { action == .deny && (reason == .default || reason == .expiredRule) }
}
