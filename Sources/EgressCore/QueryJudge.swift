public import EgressPolicy
public import NetPrimitives
public import WireFormat

/// Decides what becomes of a client's query before anything is looked up.
///
///     paused ─▶ REFUSED        a name that is none ─▶ denied        PTR ─▶ from the pins, never from upstream
///     policy: silent, and somebody may be asked ─▶ held        denied ─▶ NXDOMAIN, apex of an allowed wildcard ─▶ NODATA, allowed ─▶ a type we answer? ─▶ resolve
public struct QueryJudge {
    /// How a denied query is answered.
    public enum DeniedAnswer: String, Hashable, Sendable, CaseIterable {
        /// NXDOMAIN: programs give up at once.
        case nameError = "nxdomain"
        /// REFUSED: programs may try other servers, which end up here too.
        case refused

        /// The response code.
        public var code: DNSResponseCode { self == .nameError ? .nameError : .refused }
    }

    /// What becomes of a query.
    public enum Decision: Hashable, Sendable {
        /// Look it up, in the cache or upstream.
        case resolve(DomainName)
        /// Answer with what the process knows itself; nothing is recorded.
        case answer(DNSResponse)
        /// Answer so, and record the verdict.
        case deny(DNSResponse, Verdict)
        /// Ask somebody whether the name is to be allowed, for no rule speaks of it; otherwise it would be denied so.
        case hold(DomainName, DNSResponse, Verdict)
    }

    /// For how many seconds an answer about a pinned address may be kept.
    public static let pointerTTL: UInt32 = 60
    /// The types that are answered for an allowed name. Others could carry anything (NULL, TYPE65280) or everything
    /// (ANY, AXFR).
    public static let answeredTypes: [DNSRecordType] = [
        .a, .aaaa, .cname, .https, .svcb, .txt, .mx, .srv, .ns, .soa, .caa, .ptr, .naptr, .tlsa, .ds, .dnskey,
    ]

    private let policy: CompiledPolicy
    private let pins: PinTable
    private let isPaused: Bool
    private let isAsking: Bool
    private let deniedAnswer: DeniedAnswer
    private let now: MonotonicTime
    private let wallTime: WallTime

    /// A judge for one moment. `isAsking` says whether somebody can be asked about names that no rule speaks of.
    public init(
        policy: CompiledPolicy,
        pins: PinTable,
        isPaused: Bool,
        isAsking: Bool = false,
        deniedAnswer: DeniedAnswer = .nameError,
        now: MonotonicTime,
        wallTime: WallTime
    ) {
        self.policy = policy
        self.pins = pins
        self.isPaused = isPaused
        self.isAsking = isAsking
        self.deniedAnswer = deniedAnswer
        self.now = now
        self.wallTime = wallTime
    }
}

extension QueryJudge {
    /// What becomes of `query`.
    public func judge(_ query: DNSQuery) -> Decision {
        if let edns = query.edns, edns.version > 0 { return .answer(DNSResponse(.badVersion)) }
        guard !isPaused else { return refuse(.paused) }
        let name: DomainName
        switch query.name {
        case .success(let parsed):
            name = parsed
        case .failure:
            // NXDOMAIN for the root would stand for every name there is (RFC 8020).
            return query.wireName.isRoot ? refuse(.malformedName) : deny(Verdict(.deny, .malformedName))
        }
        if query.type == .ptr, name.isReverse { return answerPointer(query, name) }
        if let (response, verdict) = refusal(of: name) {
            // A type that is never answered is not worth a question.
            let isAsked = isAsking && verdict.leavesOpen && query.type != .ptr
            return isAsked && Self.answeredTypes.contains(query.type)
                ? .hold(name, response, verdict) : .deny(response, verdict)
        }
        guard Self.answeredTypes.contains(query.type) else { return refuse(.default) }
        // A pointer elsewhere than in the reverse tree; the name itself exists, so NXDOMAIN would be a lie that kills it.
        if query.type == .ptr { return .answer(DNSResponse(.noError)) }
        return .resolve(name)
    }

    /// Whether an answer that has arrived for `name` may still be released: the policy may have changed, or the sandbox
    /// been paused, since it was asked for. `nil` when it may.
    public func judgeRelease(of name: DomainName) -> (DNSResponse, Verdict)? {
        guard !isPaused else {
            let verdict = Verdict(.deny, .paused)
            return (refusal(verdict), verdict)
        }
        return refusal(of: name)
    }

    /// What is recorded of a query for `name` that was answered: the rule that allows it, in report mode what would have
    /// denied it.
    public func verdictOnAnswered(_ name: DomainName) -> Verdict {
        if policy.policy.mode == .report {
            switch policy.enforcedQuery(name, at: wallTime) {
            case .allow: break
            case .deny(var verdict), .noData(var verdict):
                verdict.action = .allow
                verdict.isReportOnly = true
                return verdict
            }
        }
        // A query has no port. Most rules cover this one; for others the name's own rule is told.
        let flow = Flow(name: name, address: nil, port: 443, transport: .tcp)
        let verdict = policy.decide(flow, at: wallTime)
        if verdict.action == .allow, !verdict.isReportOnly { return verdict }
        return Verdict(.allow, .rule, rule: policy.wildcardKey(for: name, at: wallTime), basis: .name)
    }

    /// Reverse look-ups would tell whoever serves the reverse zone what the sandbox looks at, and need no upstream: the
    /// pins say which name an address was resolved for.
    private func answerPointer(_ query: DNSQuery, _ name: DomainName) -> Decision {
        guard let address = IPAddress(reverseName: name), pins.isPinned(address, at: now),
            let target = pins.lastName(at: address)
        else { return deny(Verdict(.deny, .default)) }
        let record = DNSResourceRecord(pointer: query.wireName.folded, to: target, ttl: Self.pointerTTL)
        return .answer(DNSResponse(.noError, answers: [record]))
    }
}

// MARK: - Refusals

extension QueryJudge {
    /// The answer to a name that the policy denies, or whose every address it does.
    public func denial(_ verdict: Verdict) -> DNSResponse {
        DNSResponse(deniedAnswer.code, extendedError: Self.blocked(verdict))
    }

    /// The answer to a query whose name may be allowed, but not so.
    public func refusal(_ verdict: Verdict) -> DNSResponse {
        DNSResponse(.refused, extendedError: Self.blocked(verdict))
    }

    /// What the policy answers to a name that it does not allow; `nil` for one that it does.
    private func refusal(of name: DomainName) -> (DNSResponse, Verdict)? {
        switch policy.decideQuery(name, at: wallTime) {
        case .allow: nil
        case .deny(let verdict): (denial(verdict), verdict)
        case .noData(let verdict): (DNSResponse(.noError, extendedError: Self.blocked(verdict)), verdict)
        }
    }

    private func deny(_ verdict: Verdict) -> Decision { .deny(denial(verdict), verdict) }

    private func refuse(_ reason: Reason) -> Decision {
        let verdict = Verdict(.deny, reason)
        return .deny(refusal(verdict), verdict)
    }

    private static func blocked(_ verdict: Verdict) -> DNSExtendedError {
        .blocked("sandgate: \(verdict.reason.rawValue)")
    }
}
