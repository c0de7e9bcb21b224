import EgressCore
import EgressPolicy
import NetPrimitives
import Testing
import WireFormat

@Suite struct QueryJudgeTests {
    let now = MonotonicTime(nanoseconds: 5_000_000_000)
    let wallTime = WallTime(microseconds: 1_000_000)

    // D1
    @Test func resolvesOnlyWhatThePolicyAllows() throws {
        let judge = try judge(["api.example", "*.wild.example"])
        #expect(judge.judge(query("api.example")) == .resolve(try DomainName("api.example")))
        #expect(judge.judge(query("API.Example.")) == .resolve(try DomainName("api.example")))
        #expect(judge.judge(query("a.b.wild.example")) == .resolve(try DomainName("a.b.wild.example")))
        for name in ["other.example", "x.api.example", "localhost", "wpad", "xn--pi-8ia.example"] {
            let (response, verdict) = try denial(judge.judge(query(name)))
            #expect(response.code == .nameError, "\(name)")
            #expect(response.extendedError?.code == 15)
            #expect(response.answers.isEmpty)
            #expect(verdict.reason == .default)
        }
    }

    @Test func keepsTheChildrenOfADeniedApexAlive() throws {
        for name in ["wild.example", "example"] {
            let (response, verdict) = try denial(judge(["*.wild.example"]).judge(query(name)))
            #expect(response.code == .noError)
            #expect(response.answers.isEmpty)
            #expect(response.extendedError?.code == 15)
            #expect(verdict.action == .deny)
        }
    }

    // N7
    @Test(
        arguments: [
            [3, 0x61, 0x2e, 0x62, 7] + Array("example".utf8) + [0],
            [3, 0x61, 0x00, 0x62, 7] + Array("example".utf8) + [0],
            [11] + Array("api.example".utf8) + [0],
            [4, 0xc3, 0xa4, 0x70, 0x69, 7] + Array("example".utf8) + [0],
            [1, 0x31, 1, 0x32, 0],
        ] as [[UInt8]]
    )
    func deniesNamesThatAreNone(wire: [UInt8]) throws {
        let open = CompiledPolicy(Policy(defaultAction: .allow))
        for judge in [try judge(["api.example", "*.example"]), judge(open)] {
            let (response, verdict) = try denial(judge.judge(try query(wire: wire)))
            #expect(response.code == .nameError)
            #expect(verdict.reason == .malformedName)
        }
    }

    @Test func doesNotDenyTheRootAway() throws {
        let (response, verdict) = try denial(judge(["api.example"]).judge(try query(wire: [0], type: .ns)))
        #expect(response.code == .refused)
        #expect(verdict.reason == .malformedName)
    }

    // D3
    @Test(arguments: [0, 3, 7, 10, 13, 24, 25, 29, 37, 38, 41, 46, 47, 49, 99, 251, 252, 253, 254, 255, 256, 65_280])
    func refusesTypesThatCarryAnything(type: UInt16) throws {
        let judge = try judge(["api.example"])
        let (response, _) = try denial(judge.judge(query("api.example", DNSRecordType(rawValue: type))))
        #expect(response.code == .refused)
        // What is denied anyway is no more open for it.
        let (other, _) = try denial(judge.judge(query("other.example", DNSRecordType(rawValue: type))))
        #expect(other.code == .nameError)
    }

    @Test(arguments: [1, 28, 5, 65, 64, 16, 15, 33, 2, 6, 257, 35, 52, 43, 48] as [UInt16])
    func resolvesTheTypesThatProgramsNeed(type: UInt16) throws {
        let decision = try judge(["api.example"]).judge(query("api.example", DNSRecordType(rawValue: type)))
        #expect(decision == .resolve(try DomainName("api.example")))
    }

    @Test func answersPointersFromThePinsAlone() throws {
        var pins = PinTable()
        try pins.admit(IPAddress("198.51.100.7")!, for: try DomainName("api.example"), ttl: 60, at: now)
        try pins.admit(IPAddress("2001:db8::7")!, for: try DomainName("six.example"), ttl: 60, at: now)
        let policy = CompiledPolicy(Policy(defaultAction: .allow))
        let judge = judge(policy, pins: pins)
        let six = "7" + String(repeating: ".0", count: 23) + ".8.b.d.0.1.0.0.2.ip6.arpa"
        for (name, target) in [("7.100.51.198.in-addr.arpa", "api.example"), (six, "six.example")] {
            guard case .answer(let response) = judge.judge(query(name, .ptr)) else {
                Issue.record("\(name) was not answered")
                continue
            }
            #expect(response.code == .noError)
            #expect(response.answers.map(\.type) == [.ptr])
            #expect(response.answers.map(\.data) == [DNSWireName(try DomainName(target)).bytes])
        }
        let others = [
            "8.100.51.198.in-addr.arpa", "100.51.198.in-addr.arpa", "in-addr.arpa", "x.100.51.198.in-addr.arpa",
            "007.100.51.198.in-addr.arpa", "1.7.100.51.198.in-addr.arpa", "ff" + six.dropFirst(), "ip6.arpa",
        ]
        for name in others {
            #expect(try denial(judge.judge(query(name, .ptr))).0.code == .nameError, "\(name)")
        }
        // Expired pins tell nothing.
        let later = QueryJudge(
            policy: policy,
            pins: pins,
            isPaused: false,
            now: now.advanced(bySeconds: 90_000),
            wallTime: wallTime
        )
        #expect(try denial(later.judge(query("7.100.51.198.in-addr.arpa", .ptr))).0.code == .nameError)
    }

    @Test func doesNotDenyAnAllowedNameForItsPointer() throws {
        #expect(try judge(["api.example"]).judge(query("api.example", .ptr)) == .answer(DNSResponse(.noError)))
    }

    @Test func refusesEverythingWhilePaused() throws {
        let policy = CompiledPolicy(Policy(defaultAction: .allow))
        let judge = QueryJudge(policy: policy, pins: PinTable(), isPaused: true, now: now, wallTime: wallTime)
        for name in ["api.example", "7.100.51.198.in-addr.arpa"] {
            let (response, verdict) = try denial(judge.judge(query(name, .ptr)))
            #expect(response.code == .refused)
            #expect(verdict.reason == .paused)
        }
        #expect(judge.judgeRelease(of: try DomainName("api.example"))?.1.reason == .paused)
    }

    @Test func answersNoOtherVersionOfEDNS() throws {
        let bytes: [UInt8] =
            [0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1] + DNSWireName(try DomainName("api.example")).bytes + [0, 1, 0, 1]
            + [0, 0, 41, 4, 208, 0, 1, 0, 0, 0, 0]
        let query = try DNSQuery(parsing: bytes)
        #expect(try judge(["api.example"]).judge(query) == .answer(DNSResponse(.badVersion)))
    }

    @Test func canRefuseInsteadOfDenying() throws {
        let policy = CompiledPolicy(Policy())
        let judge = QueryJudge(
            policy: policy,
            pins: PinTable(),
            isPaused: false,
            deniedAnswer: .refused,
            now: now,
            wallTime: wallTime
        )
        #expect(try denial(judge.judge(query("api.example"))).0.code == .refused)
    }

    // N9
    @Test func judgesAgainBeforeReleasing() throws {
        let name = try DomainName("api.example")
        #expect(try judge(["api.example"]).judgeRelease(of: name) == nil)
        #expect(try judge(["other.example"]).judgeRelease(of: name)?.0.code == .nameError)
    }

    @Test func tellsTheRuleOfAnAnswer() throws {
        let judge = try judge(["other.example", "*.wild.example"])
        let verdict = judge.verdictOnAnswered(try DomainName("a.wild.example"))
        #expect(verdict.action == .allow)
        #expect(verdict.rule?.index == 1)
        var rule = Rule(.allow, .subdomains(of: try DomainName("wild.example")))
        rule.ports = [PortRange(22)!]
        let narrow = self.judge(CompiledPolicy(Policy(rules: [rule])))
        #expect(narrow.verdictOnAnswered(try DomainName("a.wild.example")).rule?.index == 0)
    }

    @Test func tellsInReportModeWhatWouldHaveBeenDenied() throws {
        let judge = judge(CompiledPolicy(Policy(mode: .report)))
        let name = try DomainName("api.example")
        #expect(judge.judge(query("api.example")) == .resolve(name))
        let verdict = judge.verdictOnAnswered(name)
        #expect(verdict.isReportOnly)
        #expect(verdict.action == .allow)
        #expect(verdict.reason == .default)
    }
}

extension QueryJudgeTests {
    private func judge(_ targets: [String]) throws -> QueryJudge {
        judge(CompiledPolicy(Policy(rules: try targets.map { Rule(.allow, try Target(parsing: $0)) })))
    }

    private func judge(_ policy: CompiledPolicy, pins: PinTable = PinTable()) -> QueryJudge {
        QueryJudge(policy: policy, pins: pins, isPaused: false, now: now, wallTime: wallTime)
    }

    private func query(_ name: String, _ type: DNSRecordType = .a) -> DNSQuery {
        DNSQuery(try! DomainName(name), type)
    }

    private func query(wire: [UInt8], type: DNSRecordType = .a) throws -> DNSQuery {
        try DNSQuery(
            parsing: [0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0] + wire + [0, UInt8(type.rawValue), 0, 1]
        )
    }

    private func denial(_ decision: QueryJudge.Decision) throws -> (DNSResponse, Verdict) {
        guard case .deny(let response, let verdict) = decision else {
            throw NotDenied(decision: decision)
        }
        return (response, verdict)
    }

    private struct NotDenied: Error {
        let decision: QueryJudge.Decision
    }
}
