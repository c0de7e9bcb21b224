import EgressCore
import EgressPolicy
import NetPrimitives
import WireFormat

/// What each query and connection costs in user space, to be run under callgrind: instructions are the same every time,
/// where seconds on a shared machine are not.
enum CountedWork: String, CaseIterable {
    /// A DNS query that is parsed, judged, answered from the cache, judged again and encoded: the whole way of one whose
    /// addresses are pinned.
    case dnsCached = "dns-cached"
    /// One for a name that nobody asked for before: parsed, judged, encoded for a server, whose answer is decoded, kept, judged,
    /// pinned in our table, and encoded for the program. Without what c-ares and the kernel do.
    case dnsUncached = "dns-uncached"
    /// A DNS query that is parsed, denied and answered.
    case dnsDenied = "dns-denied"
    /// A connection whose ClientHello is parsed and judged.
    case tlsConnection = "tls-connection"
    /// A connection whose HTTP/1 request head is parsed and judged.
    case httpConnection = "http-connection"
    /// A decision among 100,000 rules of all kinds.
    case decision
    /// A rule among 10,000 that are compiled.
    case compilation

    /// Does it so often.
    func run(_ count: Int) {
        switch self {
        case .dnsCached: Self.query(Self.allowed, count)
        case .dnsUncached: Self.newQueries(count)
        case .dnsDenied: Self.query("denied.invalid", count)
        case .tlsConnection: Self.connection(Self.clientHello, count)
        case .httpConnection:
            Self.connection(Array("GET /index.html HTTP/1.1\r\nHost: \(Self.allowed)\r\n\r\n".utf8), count)
        case .decision: Self.decide(count)
        case .compilation: Self.compile(count)
        }
    }

    private static let allowed = "service77.team8.example"
    private static let now = MonotonicTime(nanoseconds: 1_000_000_000)
    private static let wallTime = WallTime(microseconds: 1_800_000_000_000_000)
    private static let address = IPAddress("198.51.100.7")!

    private static func names(_ count: Int) -> Policy {
        Policy(
            rules: (0..<count).map { index in
                let name = "service\(index).team\(index % 23).example"
                return Rule(.allow, try! Target(parsing: index % 2 == 1 ? name : "*.\(name)"))
            }
        )
    }
}

// MARK: - DNS

extension CountedWork {
    private static func query(_ name: String, _ count: Int) {
        let policy = CompiledPolicy(names(1_000))
        let name = try! DomainName(name)
        let message: [UInt8] =
            [0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0] + DNSWireName(name).bytes + [0, 1, 0, 1]
        var cache = DNSCache()
        cache.store(answer(to: name), for: DNSCache.Key(name, .a), at: now)
        var size = 0
        for _ in 0..<count { size += reply(to: message, policy, &cache).count }
        use(size)
    }

    private static func answer(to name: DomainName) -> DNSAnswer {
        var generator = SystemRandomNumberGenerator()
        let query = DNSUpstreamQuery(name, .a, isDNSSECOK: false, using: &generator)
        return try! DNSAnswerSanitizer().sanitize(upstreamReply(to: query, address), for: query)
    }

    /// What a server says.
    private static func upstreamReply(to query: DNSUpstreamQuery, _ address: IPAddress) -> [UInt8] {
        var reply = query.encode()
        reply[2] = 0x81
        reply[3] = 0x80
        reply[7] = 1
        let record: [UInt8] = [0xc0, 12, 0, 1, 0, 1, 0, 0, 1, 44, 0, 4] + address.networkBytes
        // Before the OPT record, which is the last.
        reply.insert(contentsOf: record, at: reply.count - 11)
        return reply
    }

    private static func newQueries(_ count: Int) {
        let policy = CompiledPolicy(Policy(rules: [Rule(.allow, try! Target(parsing: "*.team8.example"))]))
        let sanitizer = DNSAnswerSanitizer()
        var (cache, pins, generator, size) = (DNSCache(), PinTable(), SteadyGenerator(), 0)
        for number in 0..<count {
            let name = DNSWireName(try! DomainName("service\(number + 100_000).team8.example"))
            let message: [UInt8] = [0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0] + name.bytes + [0, 1, 0, 1]
            size +=
                reply(
                    toNew: message,
                    at: IPAddress(v4: 0xc633_0000 + UInt32(number)),
                    policy,
                    sanitizer,
                    &cache,
                    &pins,
                    &generator
                ).count
        }
        use(size)
    }

    /// Draws the same numbers every time, which random ones would not cost.
    private struct SteadyGenerator: RandomNumberGenerator {
        private var state: UInt64 = 1

        mutating func next() -> UInt64 {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return state
        }
    }

    private static func reply(
        toNew message: [UInt8],
        at address: IPAddress,
        _ policy: CompiledPolicy,
        _ sanitizer: DNSAnswerSanitizer,
        _ cache: inout DNSCache,
        _ pins: inout PinTable,
        _ generator: inout SteadyGenerator
    ) -> [UInt8] {
        func judge(_ pins: PinTable) -> QueryJudge {
            QueryJudge(policy: policy, pins: pins, isPaused: false, now: now, wallTime: wallTime)
        }
        let query = try! DNSQuery(parsing: message)
        guard case .resolve(let name) = judge(pins).judge(query) else { preconditionFailure("the name is denied") }
        let key = DNSCache.Key(name, query.type)
        precondition(cache.hit(for: key, at: now) == nil && !pins.holds(name), "the name is not new")
        use(policy.wildcardKey(for: name, at: wallTime))
        let upstreamQuery = DNSUpstreamQuery(name, query.type, isDNSSECOK: false, using: &generator)
        let answer = try! sanitizer.sanitize(upstreamReply(to: upstreamQuery, address), for: upstreamQuery)
        cache.store(answer, for: key, at: now)
        precondition(judge(pins).judgeRelease(of: name) == nil, "the name is denied")
        let usable = answer.removingAddresses { policy.mayUse($0, at: wallTime) }.answer
        for address in usable.addresses {
            use(pins.kernelTimeout(for: address, ttl: usable.ttl, at: now))
            try! pins.admit(address, for: name, ttl: usable.ttl, at: now)
        }
        use(judge(pins).verdictOnAnswered(name))
        return DNSResponse(usable.code, answers: usable.records).encode(for: query, over: .udp)
    }

    private static func reply(to message: [UInt8], _ policy: CompiledPolicy, _ cache: inout DNSCache) -> [UInt8] {
        let query = try! DNSQuery(parsing: message)
        let judge = QueryJudge(policy: policy, pins: PinTable(), isPaused: false, now: now, wallTime: wallTime)
        switch judge.judge(query) {
        case .answer(let response), .deny(let response, _), .hold(_, let response, _):
            return response.encode(for: query, over: .udp)
        case .resolve(let name):
            let kept = cache.answer(for: DNSCache.Key(name, query.type), at: now)!
            precondition(judge.judgeRelease(of: name) == nil, "the benchmark's name is denied")
            let usable = kept.removingAddresses { policy.mayUse($0, at: wallTime) }.answer
            use(judge.verdictOnAnswered(name))
            return DNSResponse(usable.code, answers: usable.records).encode(for: query, over: .udp)
        }
    }
}

// MARK: - Connections

extension CountedWork {
    private static func connection(_ bytes: [UInt8], _ count: Int) {
        let policy = CompiledPolicy(names(1_000))
        var pins = PinTable()
        try! pins.admit(address, for: try! DomainName(allowed), ttl: 300, at: now)
        let judge = TunnelJudge(policy: policy, pins: pins, now: now, wallTime: wallTime)
        var dialled = 0
        for _ in 0..<count {
            var first = FirstBytes()
            let name: DomainName
            switch first.examine(bytes) {
            case .clientHello(let hello):
                guard case .name(let found) = hello.serverName else { preconditionFailure("no server name") }
                name = found
            case .httpRequest(let head):
                guard case .name(let found) = head.host.host else { preconditionFailure("no host") }
                name = found
            default:
                preconditionFailure("the benchmark's bytes are malformed")
            }
            let judgement = judge.judge(name: name, destination: Endpoint(address, 443))
            precondition(judgement.verdict.action == .allow, "the benchmark's connection is denied")
            dialled += 1
        }
        use(dialled)
    }

    /// 517 bytes, as browsers send with padding.
    private static var clientHello: [UInt8] {
        func two(_ value: Int) -> [UInt8] { [UInt8(value >> 8), UInt8(value & 0xff)] }
        let name = Array(allowed.utf8)
        let extensions: [(Int, [UInt8])] = [
            (0, two(name.count + 3) + [0] + two(name.count) + name), (10, [0, 4, 0, 29, 0, 23]),
            (11, [1, 0]), (13, [0, 4, 4, 3, 8, 4]), (16, [0, 12, 2, 0x68, 0x32, 8] + Array("http/1.1".utf8)),
            (43, [4, 3, 4, 3, 3]), (45, [1, 1]), (51, two(36) + [0, 29] + two(32) + Array(repeating: 9, count: 32)),
        ]
        var list = extensions.flatMap { two($0.0) + two($0.1.count) + $0.1 }
        let head: [UInt8] =
            [3, 3] + Array(repeating: 7, count: 32) + [32] + Array(repeating: 5, count: 32)
            + two(32) + (0..<16).flatMap { two(0xc02b + $0) } + [1, 0]
        let padding = 517 - 5 - 4 - head.count - 2 - list.count - 4
        list += two(21) + two(padding) + Array(repeating: 0, count: padding)
        let body = head + two(list.count) + list
        return [22, 3, 1] + two(body.count + 4) + [1, 0] + two(body.count) + body
    }
}

// MARK: - Policies

extension CountedWork {
    private static func decide(_ count: Int) {
        let policy = CompiledPolicy(DecisionBenchmark.rules(100_000))
        let flows = DecisionBenchmark.flows
        var allowed = 0
        for index in 0..<count where policy.decide(flows[index % flows.count], at: wallTime).action == .allow {
            allowed += 1
        }
        use(allowed)
    }

    private static func compile(_ count: Int) {
        let policy = names(10_000)
        for _ in 0..<max(count / 10_000, 1) { use(CompiledPolicy(policy)) }
    }
}
