public import EgressCore
import EgressPolicy
import NetPrimitives
import Reactor
public import UpstreamDNS
import WireFormat

/// A sandbox's resolver: what its programs ask, and what its proxies need to know. Confined to its event loop.
///
///     query ─▶ judge ─▶ cache ─▶ budget ─▶ ask upstream ─▶ sanitise ─▶ cache
///                         └──────────────────────────────────▶ judge again ─▶ drop guarded addresses ─▶ pin ─▶ answer
///
/// Whatever is released, from the cache too, was pinned in the kernel just before, so that asking again extends a pin.
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

    /// How a denied name is answered.
    public var deniedAnswer = QueryJudge.DeniedAnswer.nameError

    let limits: Limits
    /// How many TCP clients there are, over both families.
    var clientCount = 0
    private unowned let attachment: Attachment
    private let upstream: UpstreamResolver
    private let sanitizer: DNSAnswerSanitizer
    private var cache: DNSCache
    private var budget: DNSBudget
    private var generator = SystemRandomNumberGenerator()
    private var lookups: [DNSCache.Key: Lookup] = [:]
    private var pendingCount = 0

    /// The resolver of `attachment`, which gets its ``Attachment/resolve`` from it. Asks `upstream` outside.
    public init(attachment: Attachment, upstream: UpstreamResolver) {
        self.attachment = attachment
        self.upstream = upstream
        self.limits = attachment.limits.queries
        self.sanitizer = DNSAnswerSanitizer(limits: attachment.limits.answers)
        self.cache = DNSCache(limits: attachment.limits.cache)
        self.budget = DNSBudget(limits: attachment.limits.budget)
        attachment.resolve = { [weak self] name, completion in
            guard let self else { return completion(.failure(.upstreamFailed)) }
            resolve(name, completion: completion)
        }
    }

    deinit {
        lookups.values.forEach { $0.upstreamQuery?.cancel() }
    }
}

// MARK: - Programs

extension DNSResolver {
    /// Answers one message of a program. `reply` is called once, now or later; with `nil` for what must not be answered.
    func answer(_ message: [UInt8], over transport: DNSResponse.Transport, reply: @escaping ([UInt8]?) -> Void) {
        // Having waited for those that were found with it counts.
        let start = attachment.loop.now
        let query: DNSQuery
        do {
            query = try DNSQuery(parsing: message)
        } catch {
            record(.dnsDenied, Verdict(.deny, .malformedHello), host: nil)
            reply(error.reply)
            if error.reply != nil { attachment.latencies.countAnswer(.refused, since: start) }
            return
        }
        switch judge().judge(query) {
        case .answer(let response):
            reply(response.encode(for: query, over: transport))
            attachment.latencies.countAnswer(.local, since: start)
        case .deny(let response, let verdict):
            record(.dnsDenied, verdict, host: "\(query.wireName.folded)")
            reply(response.encode(for: query, over: transport))
            attachment.latencies.countAnswer(.refused, since: start)
        case .resolve(let name):
            let key = DNSCache.Key(name, query.type, isDNSSECOK: query.edns?.isDNSSECOK ?? false)
            lookUp(key) { [weak self] outcome in
                guard let self else { return }
                reply(response(to: name, outcome).encode(for: query, over: transport))
                attachment.latencies.countAnswer(outcome.counted, since: start)
            }
        }
    }

    /// What a look-up's outcome is to a program; recorded.
    private func response(to name: DomainName, _ outcome: Outcome) -> DNSResponse {
        switch outcome {
        case .released(let answer, _):
            let verdict = judge().verdictOnAnswered(name)
            record(.dnsAllowed, verdict, host: "\(name)")
            recordAliases(of: answer, verdict)
            var response = DNSResponse(answer.code, answers: answer.records, authorities: answer.authorities)
            response.isAuthenticData = answer.isAuthenticData
            return response
        case .denied(let response, let verdict):
            record(.dnsDenied, verdict, host: "\(name)")
            return response
        case .failed(let reason):
            record(.dnsDenied, Verdict(.deny, reason), host: "\(name)")
            return DNSResponse(.serverFailure, extendedError: .networkError)
        }
    }

    /// An alias of an allowed name is allowed with it; where the policy denies it by itself, that is worth knowing.
    private func recordAliases(of answer: DNSAnswer, _ verdict: Verdict) {
        for alias in answer.chain.dropFirst() {
            guard let name = try? alias.domainName(),
                case .deny = attachment.policy.enforcedQuery(name, at: attachment.loop.wallTime())
            else { continue }
            record(.dnsAllowed, verdict, host: "\(name)")
        }
    }

    /// Records a message that is longer than any query: it is not answered.
    func refuseOversized() {
        record(.dnsDenied, Verdict(.deny, .malformedHello), host: nil)
    }

    /// Records that so many queries were lost before they were read.
    func tellOfLostQueries(_ count: UInt64) {
        attachment.tell(.queries, times: count)
    }

    private func record(_ kind: AuditEvent.Kind, _ verdict: Verdict, host: String?) {
        var event = attachment.event(kind)
        event.layer = .dns
        event.verdict = verdict
        event.host = host
        attachment.record(event)
    }
}

// MARK: - Proxies

extension DNSResolver {
    /// The addresses of `name` that may be dialled, pinned: IPv6 and IPv4 in turn, IPv6 first (RFC 8305 4).
    /// `completion` is called once, now or later. Nothing is recorded; the proxy does.
    func resolve(_ name: DomainName, completion: @escaping (Result<[IPAddress], ResolutionFailure>) -> Void) {
        switch judge().judge(DNSQuery(name, .a)) {
        case .resolve: break
        case .deny(_, let verdict): return completion(.failure(.denied(verdict)))
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
        QueryJudge(
            policy: attachment.policy,
            pins: attachment.pinner.table,
            isPaused: attachment.isPaused,
            deniedAnswer: deniedAnswer,
            now: attachment.loop.now,
            wallTime: attachment.loop.wallTime()
        )
    }

    /// Looks up what the judge let through.
    private func lookUp(_ key: DNSCache.Key, then waiter: @escaping (Outcome) -> Void) {
        if let answer = cache.answer(for: key, at: attachment.loop.now) {
            return waiter(release(answer, for: key.name, isCached: true))
        }
        guard pendingCount < limits.maximumPending else { return waiter(.failed(.queryLimit)) }
        if let lookup = lookups[key] {
            pendingCount += 1
            lookup.waiters.append(waiter)
            return
        }
        if let refusal = spendBudget(key.name) { return waiter(refusal) }
        pendingCount += 1
        ask(key, waiter)
    }

    private func ask(_ key: DNSCache.Key, _ waiter: @escaping (Outcome) -> Void) {
        let query = DNSUpstreamQuery(key.name, key.type, isDNSSECOK: key.isDNSSECOK, using: &generator)
        let lookup = Lookup(query, waiter)
        lookups[key] = lookup
        let upstreamQuery = upstream.send(query.encode()) { [weak self] result in
            self?.finish(key, lookup, result)
        }
        // It may have ended within the call.
        if lookups[key] === lookup { lookup.upstreamQuery = upstreamQuery }
    }

    private func finish(_ key: DNSCache.Key, _ lookup: Lookup, _ result: Result<[UInt8], UpstreamError>) {
        lookups[key] = nil
        lookup.upstreamQuery = nil
        pendingCount -= lookup.waiters.count
        let outcome: Outcome
        if case .success(let bytes) = result, let answer = try? sanitizer.sanitize(bytes, for: lookup.query) {
            cache.store(answer, for: key, at: attachment.loop.now)
            outcome = release(answer, for: key.name, isCached: false)
        } else {
            outcome = .failed(.upstreamFailed)
        }
        lookup.waiters.forEach { $0(outcome) }
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
            record(.dnsAllowed, reported, host: "\(name)")
            return nil
        }
        return .denied(judge().refusal(verdict), verdict)
    }

    /// The last steps before an answer is released. The policy may have changed since it was asked for.
    ///
    /// No judge is kept: it holds the pin table, which pinning would then have to copy whole.
    private func release(_ answer: DNSAnswer, for name: DomainName, isCached: Bool) -> Outcome {
        if let (response, verdict) = judge().judgeRelease(of: name) { return .denied(response, verdict) }
        let (policy, wallTime) = (attachment.policy, attachment.loop.wallTime())
        let (usable, removed) = answer.removingAddresses { policy.mayUse($0, at: wallTime) }
        let addresses = usable.addresses
        if addresses.isEmpty, !removed.isEmpty {
            let verdict = Verdict(.deny, .guardRange)
            return .denied(judge().denial(verdict), verdict)
        }
        do {
            try attachment.pinner.pin(addresses, for: name, ttl: usable.ttl)
        } catch .tooManyAddresses {
            return .failed(.pinLimit)
        } catch {
            return .failed(.upstreamFailed)
        }
        return .released(usable, isCached: isCached)
    }
}
