public import EgressCore
import EgressPolicy
public import NetPrimitives
import Reactor
public import UpstreamDNS
import WireFormat

/// A sandbox's resolver: what its programs ask, and what its proxies need to know. Confined to its event loop.
///
///     query ─▶ judge ─▶ cache ─▶ budget ─▶ ask upstream ─▶ sanitise ─▶ cache
///                         └──────────────────────────────────▶ judge again ─▶ drop guarded addresses ─▶ pin ─▶ answer
///
/// Whatever is released, from the cache too, was pinned in the kernel just before, so that asking again extends a pin. Of
/// what arrives from upstream together, the addresses are pinned together.
public final class DNSResolver {
    /// Bounds on what one sandbox can ask for.
    public struct Limits: Sendable {
        /// The most queries that wait for an answer at once; further ones get SERVFAIL.
        public var maximumPending = 512
        /// The most TCP clients at once, over both families.
        public var maximumClients = 64
        /// The most queries of one TCP client that wait for an answer; then no more is read of it.
        public var maximumPendingOfClient = 64
        /// How long a TCP client may be silent while it waits for nothing, in seconds.
        public var clientIdleSeconds: UInt64 = 10
        /// How long one message of a TCP client may take to arrive, in seconds.
        public var messageSeconds: UInt64 = 30

        /// The defaults.
        public init() {}
    }

    /// What a look-up came to.
    enum Outcome {
        /// An answer all of whose addresses are pinned, and whether it was at hand already.
        case released(DNSAnswer, isCached: Bool)
        /// The policy refuses it: what to answer, and why.
        case denied(DNSResponse, Verdict)
        /// No server answered, the kernel would not pin, or a limit bit.
        case failed(Reason)
    }

    private final class Lookup {
        let query: DNSUpstreamQuery
        var waiters: [(Outcome) -> Void]
        var upstreamQuery: UpstreamQuery?

        init(_ query: DNSUpstreamQuery, _ waiter: @escaping (Outcome) -> Void) {
            self.query = query
            self.waiters = [waiter]
        }
    }

    /// What an upstream server said, or that none did.
    private struct Arrival {
        let key: DNSCache.Key
        let lookup: Lookup
        let result: Result<[UInt8], UpstreamError>
    }

    /// What becomes of an answer, before its addresses are pinned.
    private enum Release {
        /// It is not released.
        case withheld(Outcome)
        /// It is, as soon as these are pinned.
        case ready(DNSAnswer, Pinner.Request)

        var request: Pinner.Request? {
            if case .ready(_, let request) = self { request } else { nil }
        }

        /// What the look-up came to, where pinning went well or ended in `error`.
        func outcome(_ error: Pinner.PinError?, isCached: Bool) -> Outcome {
            switch (self, error) {
            case (.withheld(let outcome), _): outcome
            case (.ready, .tooManyAddresses): .failed(.pinLimit)
            case (.ready, .kernel): .failed(.upstreamFailed)
            case (.ready(let answer, _), nil): .released(answer, isCached: isCached)
            }
        }
    }

    /// How a denied name is answered.
    public var deniedAnswer = QueryJudge.DeniedAnswer.nameError

    let limits: Limits
    /// How many TCP clients there are, over both families.
    var clientCount = 0
    private unowned let attachment: Attachment
    private let upstream: UpstreamResolver
    private let localNames: LocalNames?
    private let sanitizer: DNSAnswerSanitizer
    private var cache: DNSCache
    private var ready = ReadyAnswers()
    private var budget: DNSBudget
    private var generator = RandomPool()
    private var lookups: [DNSCache.Key: Lookup] = [:]
    private var pendingCount = 0
    /// What came from upstream and was not looked at yet.
    private var arrivals: [Arrival] = []

    /// The resolver of `attachment`, which gets its ``Attachment/resolve`` from it. Asks `upstream` outside, and of
    /// `localNames` who knows them, where there are such names.
    public init(attachment: Attachment, upstream: UpstreamResolver, localNames: LocalNames? = nil) {
        self.attachment = attachment
        self.upstream = upstream
        self.localNames = localNames
        self.limits = attachment.limits.queries
        self.sanitizer = DNSAnswerSanitizer(limits: attachment.limits.answers)
        self.cache = DNSCache(limits: attachment.limits.cache)
        self.budget = DNSBudget(limits: attachment.limits.budget)
        attachment.resolve = { [weak self] name, completion in
            guard let self else { return completion(.failure(.upstreamFailed)) }
            resolve(name, completion: completion)
        }
        attachment.reconsiderLookups = { [weak self] in self?.reconsider() }
    }

    /// Whether nobody waits for an answer, and no TCP client is there who could ask.
    public var isQuiet: Bool { pendingCount == 0 && clientCount == 0 }

    /// Whether a program that asks for `name` is told no at once; for the self-test.
    public func denies(_ name: DomainName) -> Bool {
        if case .deny = judge().judge(DNSQuery(name, .a)) { true } else { false }
    }

    deinit {
        lookups.values.forEach { $0.upstreamQuery?.cancel() }
    }
}

// MARK: - Programs

extension DNSResolver {
    /// What a message of a program comes to.
    enum Reception {
        /// It is answered so; with `nil` for what must not be answered. Of a message that came over UDP, the first two bytes
        /// are to be replaced by the query's: it may have been made for another of the same question.
        case answer([UInt8]?)
        /// Somebody outside has to be asked.
        case question(Question)
    }

    /// A query that was let through and whose answer is not at hand.
    struct Question {
        fileprivate let query: DNSQuery
        fileprivate let key: DNSCache.Key
        fileprivate let transport: DNSResponse.Transport
        /// Having waited for those that were found with it counts.
        fileprivate let start: MonotonicTime
        /// Whether somebody is to be asked about the name before anything is looked up.
        fileprivate let isHeld: Bool
    }

    /// Answers one message of a program. `reply` is called once, now or later; with `nil` for what must not be answered.
    func answer(_ message: [UInt8], over transport: DNSResponse.Transport, reply: @escaping ([UInt8]?) -> Void) {
        switch message.withUnsafeBytes({ receive($0, over: transport) }) {
        case .answer(let bytes): reply(bytes)
        case .question(let question): ask(question, reply: reply)
        }
    }

    /// Takes one message of a program: records and counts what can be said at once.
    func receive(_ message: UnsafeRawBufferPointer, over transport: DNSResponse.Transport) -> Reception {
        if transport == .udp, let bytes = readyAnswer(to: message) { return .answer(bytes) }
        let now = attachment.loop.now
        let query: DNSQuery
        do {
            query = try DNSQuery(parsing: Array(message))
        } catch {
            attachment.record(event(.dnsDenied, Verdict(.deny, .malformedHello), host: nil))
            if error.reply != nil { attachment.latencies.countAnswer(.refused, since: now) }
            return .answer(error.reply)
        }
        switch judge().judge(query) {
        case .answer(let response):
            attachment.latencies.countAnswer(.local, since: now)
            return .answer(response.encode(for: query, over: transport))
        case .deny(let response, let verdict):
            let event = event(.dnsDenied, verdict, host: "\(query.wireName.folded)")
            let answer = Answer(response: response, events: [event], outcome: .refused)
            // Of an address it depends on what is pinned.
            let term = query.type == .ptr ? nil : MonotonicTime(nanoseconds: .max)
            return .answer(give(answer, to: query, over: transport, since: now, message, isSameUntil: term))
        case .hold(let name, _, _):
            let key = cacheKey(name, query)
            return .question(Question(query: query, key: key, transport: transport, start: now, isHeld: true))
        case .resolve(let name):
            let key = cacheKey(name, query)
            guard let hit = cache.hit(for: key, at: now) else {
                return .question(Question(query: query, key: key, transport: transport, start: now, isHeld: false))
            }
            let outcome = release(hit.answer, for: name)
            // What could not be pinned now may be pinned next.
            let term: MonotonicTime? = if case .released = outcome { hit.isSameUntil } else { nil }
            let answer = answer(to: name, outcome)
            return .answer(give(answer, to: query, over: transport, since: now, message, isSameUntil: term))
        }
    }

    private func cacheKey(_ name: DomainName, _ query: DNSQuery) -> DNSCache.Key {
        DNSCache.Key(name, query.type, isDNSSECOK: query.edns?.isDNSSECOK ?? false)
    }

    /// Answers a question that ``receive(_:over:)`` left open. `reply` is called once, now or later.
    func ask(_ question: Question, reply: @escaping ([UInt8]?) -> Void) {
        question.isHeld ? hold(question, reply: reply) : lookUp(question, reply: reply)
    }

    /// Has somebody asked about a name that no rule speaks of. Nobody outside hears of it before it is allowed.
    private func hold(_ question: Question, reply: @escaping ([UInt8]?) -> Void) {
        guard let desk = attachment.desk else { return judgeAgain(question, reply: reply) }
        desk.ask(Questions.Subject(question.key.name)) { [weak self] ending in
            guard let self else { return }
            switch ending {
            case .judgeAgain: judgeAgain(question, reply: reply)
            case .denied(let reason):
                let verdict = Verdict(.deny, reason)
                answer(question, .denied(judge().denial(verdict), verdict), reply: reply)
            }
        }
    }

    /// A question that was held, under the policy that is in force now.
    private func judgeAgain(_ question: Question, reply: @escaping ([UInt8]?) -> Void) {
        switch judge().judge(question.query) {
        case .resolve: lookUp(question, reply: reply)
        case .hold: hold(question, reply: reply)
        case .deny(let response, let verdict): answer(question, .denied(response, verdict), reply: reply)
        case .answer(let response): reply(response.encode(for: question.query, over: question.transport))
        }
    }

    private func answer(_ question: Question, _ outcome: Outcome, reply: ([UInt8]?) -> Void) {
        let answer = answer(to: question.key.name, outcome)
        reply(give(answer, to: question.query, over: question.transport, since: question.start))
    }

    private func lookUp(_ question: Question, reply: @escaping ([UInt8]?) -> Void) {
        let waiter = { [weak self] (outcome: Outcome) in
            guard let self else { return }
            answer(question, outcome, reply: reply)
        }
        // What was not held was looked for in the cache just now.
        question.isHeld ? lookUp(question.key, then: waiter) : lookUpstream(question.key, then: waiter)
    }

    /// What a query comes to: the answer, what is recorded of it and how it is counted.
    private struct Answer {
        let response: DNSResponse
        let events: [AuditEvent]
        let outcome: LatencyCounts.AnswerOutcome
    }

    /// Records and counts an answer, and returns its bytes. With a `term` it is ready for who sends `message` again until
    /// then.
    private func give(
        _ answer: Answer,
        to query: DNSQuery,
        over transport: DNSResponse.Transport,
        since start: MonotonicTime,
        _ message: UnsafeRawBufferPointer? = nil,
        isSameUntil term: MonotonicTime? = nil
    ) -> [UInt8] {
        answer.events.forEach(attachment.record)
        let bytes = answer.response.encode(for: query, over: transport)
        if let message, let term, transport == .udp, !attachment.isPaused {
            ready.keep(
                .init(message: bytes, events: answer.events, outcome: answer.outcome, isSameUntil: term),
                to: message,
                on: basis(attachment),
                at: attachment.loop.now,
                attachment.loop.wallTime()
            )
        }
        attachment.latencies.countAnswer(answer.outcome, since: start)
        return bytes
    }

    /// The answer to a message that was answered within the last second, when it would be the same again; recorded and
    /// counted.
    private func readyAnswer(to message: UnsafeRawBufferPointer) -> [UInt8]? {
        // Taken once: each time costs as much as the look-up.
        let attachment = attachment
        guard !attachment.isPaused else { return nil }
        let (now, wallTime) = (attachment.loop.now, attachment.loop.wallTime())
        guard let answer = ready.answer(to: message, on: basis(attachment), at: now, wallTime) else { return nil }
        for var event in answer.events {
            event.time = wallTime
            attachment.record(event)
        }
        attachment.latencies.countAnswer(answer.outcome, since: now)
        return answer.message
    }

    private func basis(_ attachment: Attachment) -> ReadyAnswers.Basis {
        ReadyAnswers.Basis(
            policy: attachment.policy,
            endedAdmissions: attachment.pinner.table.endedAdmissions,
            deniedAnswer: deniedAnswer
        )
    }

    /// Frees what is kept for programs that ask again at once.
    func forgetReadyAnswers() {
        ready.removeAll()
    }

    /// What a look-up's outcome is to a program.
    private func answer(to name: DomainName, _ outcome: Outcome) -> Answer {
        switch outcome {
        case .released(let answer, _):
            let verdict = judge().verdictOnAnswered(name)
            var response = DNSResponse(answer.code, answers: answer.records, authorities: answer.authorities)
            response.isAuthenticData = answer.isAuthenticData
            let events = [event(.dnsAllowed, verdict, host: name.description)] + events(forAliasesOf: answer, verdict)
            return Answer(response: response, events: events, outcome: outcome.counted)
        case .denied(let response, let verdict):
            let event = event(.dnsDenied, verdict, host: name.description)
            return Answer(response: response, events: [event], outcome: outcome.counted)
        case .failed(let reason):
            let event = event(.dnsDenied, Verdict(.deny, reason), host: name.description)
            let response = DNSResponse(.serverFailure, extendedError: .networkError)
            return Answer(response: response, events: [event], outcome: outcome.counted)
        }
    }

    /// An alias of an allowed name is allowed with it; where the policy denies it by itself, that is worth knowing.
    private func events(forAliasesOf answer: DNSAnswer, _ verdict: Verdict) -> [AuditEvent] {
        answer.chain.dropFirst().compactMap { alias in
            guard let name = try? alias.domainName(),
                case .deny = attachment.policy.enforcedQuery(name, at: attachment.loop.wallTime())
            else { return nil }
            return event(.dnsAllowed, verdict, host: "\(name)")
        }
    }

    /// Records a message that is longer than any query: it is not answered.
    func refuseOversized() {
        attachment.record(event(.dnsDenied, Verdict(.deny, .malformedHello), host: nil))
    }

    /// Records that so many queries were lost before they were read.
    func tellOfLostQueries(_ count: UInt64) {
        attachment.tell(.queries, times: count)
    }

    private func event(_ kind: AuditEvent.Kind, _ verdict: Verdict, host: String?) -> AuditEvent {
        var event = attachment.event(kind)
        event.layer = .dns
        event.verdict = verdict
        event.host = host
        return event
    }
}

// MARK: - Proxies

extension DNSResolver {
    /// The addresses of `name` that may be dialled, pinned: IPv6 and IPv4 in turn, IPv6 first (RFC 8305 4).
    /// `completion` is called once, now or later. Nothing is recorded; the proxy does.
    func resolve(_ name: DomainName, completion: @escaping (Result<[IPAddress], ResolutionFailure>) -> Void) {
        switch judge().judge(DNSQuery(name, .a)) {
        case .resolve: break
        // Who asks for a proxy asks before.
        case .deny(_, let verdict), .hold(_, _, let verdict): return completion(.failure(.denied(verdict)))
        case .answer: return completion(.failure(.noAddress))
        }
        let pair = AddressPair(completion)
        lookUp(DNSCache.Key(name, .aaaa)) { pair.six = $0 }
        lookUp(DNSCache.Key(name, .a)) { pair.four = $0 }
    }
}

/// The two look-ups behind one name; completes when both have ended.
private final class AddressPair {
    var six: DNSResolver.Outcome? { didSet { finish() } }
    var four: DNSResolver.Outcome? { didSet { finish() } }
    private let completion: (Result<[IPAddress], ResolutionFailure>) -> Void

    init(_ completion: @escaping (Result<[IPAddress], ResolutionFailure>) -> Void) {
        self.completion = completion
    }

    private func finish() {
        guard let six, let four else { return }
        let sixes = six.addresses
        let fours = four.addresses
        var addresses: [IPAddress] = []
        for index in 0..<max(sixes.count, fours.count) {
            if index < sixes.count { addresses.append(sixes[index]) }
            if index < fours.count { addresses.append(fours[index]) }
        }
        completion(addresses.isEmpty ? .failure(Self.failure(six, four)) : .success(addresses))
    }

    /// The policy's refusal says most; an outage may hide addresses, so it says more than none.
    private static func failure(_ outcomes: DNSResolver.Outcome...) -> ResolutionFailure {
        for case .denied(_, let verdict) in outcomes { return .denied(verdict) }
        for case .failed(let reason) in outcomes {
            return reason == .upstreamFailed ? .upstreamFailed : .limited(reason)
        }
        return .noAddress
    }
}

extension DNSResolver.Outcome {
    fileprivate var addresses: [IPAddress] {
        if case .released(let answer, _) = self { answer.addresses } else { [] }
    }

    fileprivate var counted: LatencyCounts.AnswerOutcome {
        switch self {
        case .released(_, let isCached): isCached ? .cached : .upstream
        case .denied: .refused
        case .failed: .failed
        }
    }
}

// MARK: - Looking up

extension DNSResolver {
    private func judge() -> QueryJudge {
        // Taken once: each time costs as much as the rest of this.
        let attachment = attachment
        return QueryJudge(
            policy: attachment.policy,
            pins: attachment.pinner.table,
            isPaused: attachment.isPaused,
            isAsking: attachment.desk != nil,
            deniedAnswer: deniedAnswer,
            now: attachment.loop.now,
            wallTime: attachment.loop.wallTime()
        )
    }

    /// Looks up what the judge let through.
    private func lookUp(_ key: DNSCache.Key, then waiter: @escaping (Outcome) -> Void) {
        if let answer = cache.answer(for: key, at: attachment.loop.now) {
            return waiter(release(answer, for: key.name))
        }
        lookUpstream(key, then: waiter)
    }

    /// Looks up what is not in the cache.
    private func lookUpstream(_ key: DNSCache.Key, then waiter: @escaping (Outcome) -> Void) {
        guard pendingCount < limits.maximumPending else { return waiter(.failed(.queryLimit)) }
        if let lookup = lookups[key] {
            pendingCount += 1
            lookup.waiters.append(waiter)
            return
        }
        if let refusal = spendBudget(key.name) { return waiter(refusal) }
        pendingCount += 1
        askUpstream(key, waiter)
    }

    private func askUpstream(_ key: DNSCache.Key, _ waiter: @escaping (Outcome) -> Void) {
        let local = localNames.flatMap { $0.contains(key.name) ? $0 : nil }
        let query = DNSUpstreamQuery(
            key.name,
            key.type,
            isDNSSECOK: key.isDNSSECOK,
            inLowerCase: local != nil,
            using: &generator
        )
        let lookup = Lookup(query, waiter)
        lookups[key] = lookup
        // What comes of it is put off, even where it has ended within the call.
        lookup.upstreamQuery = (local?.resolver ?? upstream).send(query.encode()) { [weak self] result in
            self?.take(Arrival(key: key, lookup: lookup, result: result))
        }
    }

    /// Judges what is being looked up again after a policy change: nobody outside is asked once more for a name that is not
    /// allowed any more. An answer that has arrived is judged before it is released.
    private func reconsider() {
        for (key, lookup) in lookups where lookup.upstreamQuery != nil {
            guard let (response, verdict) = judge().judgeRelease(of: key.name) else { continue }
            lookup.upstreamQuery?.cancel()
            close(lookup, for: key)
            lookup.waiters.forEach { $0(.denied(response, verdict)) }
        }
    }

    /// From here on a look-up of the same is another one.
    private func close(_ lookup: Lookup, for key: DNSCache.Key) {
        lookups[key] = nil
        pendingCount -= lookup.waiters.count
    }

    /// Puts off what follows from an answer until no more of them are at hand: then one message to the kernel pins what all
    /// of them hold.
    private func take(_ arrival: Arrival) {
        arrival.lookup.upstreamQuery = nil
        arrivals.append(arrival)
        if arrivals.count == 1 { attachment.loop.afterEvents { [weak self] in self?.finishArrived() } }
    }

    private func finishArrived() {
        let arrived = arrivals
        arrivals.removeAll(keepingCapacity: true)
        let releases = arrived.map { finish($0) }
        let requests = releases.compactMap(\.request)
        var errors = attachment.pinner.pin(requests)[...]
        for (arrival, release) in zip(arrived, releases) {
            let error = release.request == nil ? nil : errors.removeFirst()
            let outcome = release.outcome(error, isCached: false)
            arrival.lookup.waiters.forEach { $0(outcome) }
        }
    }

    /// What becomes of an answer that has arrived.
    private func finish(_ arrival: Arrival) -> Release {
        close(arrival.lookup, for: arrival.key)
        guard case .success(let bytes) = arrival.result,
            let answer = try? sanitizer.sanitize(bytes, for: arrival.lookup.query)
        else { return .withheld(.failed(.upstreamFailed)) }
        cache.store(answer, for: arrival.key, at: attachment.loop.now)
        return judgeRelease(of: answer, for: arrival.key.name)
    }

    /// Names that are pinned carry nothing new outside; others below a wildcard count.
    private func spendBudget(_ name: DomainName) -> Outcome? {
        guard !attachment.pinner.table.holds(name),
            let rule = attachment.policy.wildcardKey(for: name, at: attachment.loop.wallTime()),
            !budget.spend(name, below: rule, at: attachment.loop.now)
        else { return nil }
        let verdict = Verdict(.deny, .dnsBudget, rule: rule, basis: .name)
        guard attachment.policy.policy.mode == .enforce else {
            var reported = verdict
            reported.action = .allow
            reported.isReportOnly = true
            attachment.record(event(.dnsAllowed, reported, host: "\(name)"))
            return nil
        }
        return .denied(judge().refusal(verdict), verdict)
    }

    /// The last steps before an answer that was kept is released.
    private func release(_ answer: DNSAnswer, for name: DomainName) -> Outcome {
        let release = judgeRelease(of: answer, for: name)
        guard let request = release.request else { return release.outcome(nil, isCached: true) }
        do {
            try attachment.pinner.pin(request.addresses, for: request.name, ttl: request.ttl)
            return release.outcome(nil, isCached: true)
        } catch {
            return release.outcome(error, isCached: true)
        }
    }

    /// Whether and how an answer may be released: the policy may have changed since it was asked for.
    ///
    /// No judge is kept: it holds the pin table, which pinning would then have to copy whole.
    private func judgeRelease(of answer: DNSAnswer, for name: DomainName) -> Release {
        if let (response, verdict) = judge().judgeRelease(of: name) { return .withheld(.denied(response, verdict)) }
        let (policy, wallTime) = (attachment.policy, attachment.loop.wallTime())
        let (usable, removed) = answer.removingAddresses { policy.mayUse($0, at: wallTime) }
        let addresses = usable.addresses
        if addresses.isEmpty, !removed.isEmpty {
            let verdict = Verdict(.deny, .guardRange)
            return .withheld(.denied(judge().denial(verdict), verdict))
        }
        return .ready(usable, Pinner.Request(addresses: addresses, name: name, ttl: usable.ttl))
    }
}
