import EgressCore
import EgressPolicy
import NetPrimitives
import Testing

@Suite struct TunnelJudgeTests {
    let now = MonotonicTime(nanoseconds: 1_000_000_000)
    let name = try! DomainName("api.example")
    let other = try! DomainName("other.example")
    let pinned = Endpoint(IPAddress("198.51.100.7")!, 443)
    let open = Endpoint(IPAddress("203.0.113.5")!, 443)
    let unknown = Endpoint(IPAddress("192.0.2.1")!, 443)
    let guarded = Endpoint(IPAddress("10.0.0.1")!, 443)

    /// A judge `seconds` after `api.example` was pinned.
    private func judge(
        _ rules: [String],
        defaultAction: RuleAction = .deny,
        mode: Policy.Mode = .enforce,
        seconds: UInt64 = 0
    ) -> TunnelJudge {
        let rules = rules.map { text in
            let words = text.split(separator: " ").map(String.init)
            let ports = words.count > 2 ? [PortRange(parsing: words[2])!] : []
            return Rule(RuleAction(rawValue: words[0])!, try! Target(parsing: words[1]), ports: ports)
        }
        var pins = PinTable()
        try! pins.admit(pinned.address, for: name, ttl: 60, at: now)
        return TunnelJudge(
            policy: CompiledPolicy(Policy(defaultAction: defaultAction, mode: mode, rules: rules)),
            pins: pins,
            now: now.advanced(bySeconds: seconds),
            wallTime: WallTime(microseconds: 0)
        )
    }

    // MARK: Datagrams

    private func judgeDatagrams(_ rules: [Rule], port: UInt16 = 443, seconds: UInt64 = 0, mode: Policy.Mode = .enforce)
        -> TunnelJudge.Judgement
    {
        var pins = PinTable()
        try! pins.admit(pinned.address, for: name, ttl: 60, at: now)
        let judge = TunnelJudge(
            policy: CompiledPolicy(Policy(mode: mode, rules: rules)),
            pins: pins,
            now: now.advanced(bySeconds: seconds),
            wallTime: WallTime(microseconds: 0)
        )
        return judge.judgeOpaque(destination: Endpoint(pinned.address, port), over: .udp)
    }

    @Test func datagramsGoToAPinnedAddressOnListedPorts() {
        let rule = Rule(.allow, try! Target(parsing: "*.example"), ports: [PortRange(443)!], transport: .udp)
        let judgement = judgeDatagrams([rule])
        #expect(judgement.route == .dial(pinned))
        #expect(judgement.name == name)
        #expect(judgement.verdict.basis == .name)
        #expect(judgeDatagrams([rule], port: 444).route == .refuse)
    }

    @Test func aNameRuleWithoutPortsOpensNoDatagrams() {
        #expect(judgeDatagrams([Rule(.allow, try! Target(parsing: "*.example"))]).route == .refuse)
        #expect(judgeDatagrams([Rule(.allow, try! Target(parsing: "*.example"), transport: .udp)]).route == .refuse)
    }

    @Test func aRuleForTheOtherTransportOpensNoDatagrams() {
        let rule = Rule(.allow, try! Target(parsing: "api.example"), ports: [.all], transport: .tcp)
        #expect(judgeDatagrams([rule]).route == .refuse)
    }

    @Test func aPinInGraceOpensNoDatagrams() {
        let rule = Rule(.allow, try! Target(parsing: "api.example"), ports: [PortRange(443)!], statesAnyTransport: true)
        #expect(judgeDatagrams([rule], seconds: 299).route == .dial(pinned))
        let late = judgeDatagrams([rule], seconds: 300)
        #expect(late.route == .refuse)
        #expect(late.verdict == Verdict(.deny, .default))
    }

    @Test func anAddressRuleOpensDatagramsWithoutPorts() {
        let judgement = judgeDatagrams([Rule(.allow, try! Target(parsing: "198.51.100.0/24"))], seconds: 9_999)
        #expect(judgement.route == .dial(pinned))
        #expect(judgement.name == nil)
    }

    @Test func reportModeLetsDatagramsPass() {
        let judgement = judgeDatagrams([], mode: .report)
        #expect(judgement.route == .dial(pinned))
        #expect(judgement.verdict.isReportOnly)
    }

    @Test func datagramsAreJudgedAgainAsDatagrams() {
        let rules = ["tcp": TransportProtocol.tcp, "udp": .udp].mapValues {
            Rule(.allow, try! Target(parsing: "api.example"), ports: [PortRange(443)!], transport: $0)
        }
        for (transport, action) in [("tcp", RuleAction.deny), ("udp", .allow)] {
            let judge = TunnelJudge(
                policy: CompiledPolicy(Policy(rules: [rules[transport]!])),
                pins: PinTable(),
                now: now,
                wallTime: WallTime(microseconds: 0)
            )
            #expect(judge.judgeAgain(name: name, destination: pinned, over: .udp, basis: .name).action == action)
        }
    }

    // MARK: A connection with a name

    @Test func aNameThatIsDeniedIsRefused() {
        let judgement = judge(["deny api.example", "allow *.example"]).judge(name: name, destination: pinned)
        #expect(judgement.route == .refuse)
        #expect(judgement.verdict.reason == .rule)
        #expect(judgement.verdict.rule?.index == 0)
        #expect(judgement.name == name)
    }

    @Test func aNameRuleNeedsAFreshPinToDialTheAddress() {
        let judgement = judge(["allow *.example"]).judge(name: name, destination: pinned)
        #expect(judgement.route == .dial(pinned))
        #expect(judgement.verdict.basis == .name)
    }

    /// Thousands of connections to one host keep its name once.
    @Test func whatIsPinnedIsKeptByThePinsOwnName() throws {
        func place(of name: DomainName?) -> Int? { name?.bytes.withUnsafeBytes { Int(bitPattern: $0.baseAddress) } }
        let judge = judge(["allow *.example"])
        let shown = [try DomainName("api.example"), try DomainName("api.example")]
        let kept = shown.map { judge.judge(name: $0, destination: pinned).name }
        #expect(place(of: shown[0]) != place(of: shown[1]))
        #expect(place(of: kept[0]) == place(of: kept[1]))
    }

    @Test func anAddressOfAnEarlierProcessMayHaveHadOtherNames() {
        var pins = PinTable()
        pins.restore(pinned.address, for: other, secondsLeft: 7_200, at: now)
        func judge(_ name: DomainName, at seconds: UInt64 = 0) -> TunnelJudge.Judgement {
            TunnelJudge(
                policy: CompiledPolicy(Policy(rules: [Rule(.allow, .name(self.name)), Rule(.allow, .name(other))])),
                pins: pins,
                now: now.advanced(bySeconds: seconds),
                wallTime: WallTime(microseconds: 0)
            ).judge(name: name, destination: pinned)
        }
        #expect(judge(other).route == .dial(pinned))
        #expect(judge(name).route == .resolve(name, port: 443))
        #expect(judge(try! DomainName("denied.example")).route == .refuse)
        #expect(judge(name, at: 7_200).route == .refuse)
        pins.removeExpired(at: now.advanced(bySeconds: 7_200))
        try! pins.admit(pinned.address, for: other, ttl: 60, at: now)
        #expect(judge(name).route == .refuse)
    }

    @Test func aPinInGraceIsResolvedAgain() {
        let judgement = judge(["allow *.example"], seconds: 300).judge(name: name, destination: pinned)
        #expect(judgement.route == .resolve(name, port: 443))
        #expect(judgement.verdict.action == .allow)
    }

    @Test func anotherNamesPinOpensNothing() {
        for judgement in [
            judge(["allow *.example"]).judge(name: other, destination: pinned),
            judge(["allow *.example"]).judge(name: name, destination: unknown),
            judge(["allow *.example"], seconds: 3_900).judge(name: name, destination: pinned),
        ] {
            #expect(judgement.route == .refuse)
            #expect(judgement.verdict.reason == .nameAddressMismatch)
            #expect(judgement.verdict.action == .deny)
            #expect(judgement.verdict.rule?.index == 0)
        }
    }

    @Test func withoutAPinTheAddressMayBeOpenToEverybody() {
        let judgement = judge(["allow *.example", "allow 203.0.113.0/24"]).judge(name: name, destination: open)
        #expect(judgement.route == .dial(open))
        #expect(judgement.verdict.basis == .address)
        #expect(judgement.verdict.rule?.index == 1)
        // What report mode lets pass is not open.
        let reported = judge(["allow *.example"], mode: .report).judge(name: name, destination: unknown)
        #expect(reported.verdict.reason == .nameAddressMismatch)
    }

    @Test func anAddressRuleOrTheDefaultGoesWhereItWasGoing() {
        let byAddress = judge(["deny 203.0.113.9", "allow 203.0.113.0/24"]).judge(name: other, destination: open)
        #expect(byAddress.route == .dial(open))
        #expect(byAddress.verdict.basis == .address)
        let byDefault = judge(["deny api.example"], defaultAction: .allow).judge(name: other, destination: unknown)
        #expect(byDefault.route == .dial(unknown))
        #expect(byDefault.verdict.reason == .default)
        #expect(
            judge(["deny api.example"], defaultAction: .allow).judge(name: name, destination: unknown).route == .refuse
        )
    }

    @Test func reportModeDialsWhatItWouldRefuse() {
        let judgement = judge(["deny api.example"], mode: .report).judge(name: name, destination: unknown)
        #expect(judgement.route == .dial(unknown))
        #expect(judgement.verdict.isReportOnly)
        let inside = judge(["deny api.example"], mode: .report).judge(name: name, destination: guarded)
        #expect(inside.route == .refuse)
        #expect(inside.verdict.reason == .guardRange)
    }

    // MARK: A connection without a name

    @Test func withoutAServerNameOnlyTheAddressCounts() {
        let refused = judge(["allow *.example"]).judgeNameless(destination: pinned, reason: .noSNI)
        #expect(refused.route == .refuse)
        #expect(refused.verdict.reason == .noSNI)
        #expect(refused.name == nil)
        let byRule = judge(["deny 198.51.100.0/24"]).judgeNameless(destination: pinned, reason: .noSNI)
        #expect(byRule.verdict.reason == .rule)
        #expect(judge(["allow 203.0.113.0/24"]).judgeNameless(destination: open, reason: .noSNI).route == .dial(open))
        let reported = judge([], mode: .report).judgeNameless(destination: open, reason: .noSNI)
        #expect(reported.route == .dial(open))
        #expect(reported.verdict.reason == .noSNI)
        #expect(reported.verdict.isReportOnly)
        let inside = judge([], defaultAction: .allow).judgeNameless(destination: guarded, reason: .noSNI)
        #expect(inside.verdict.reason == .guardRange)
    }

    @Test func anOpaqueProtocolPassesByAFreshPinWhoseRuleCoversThePort() {
        let ssh = Endpoint(pinned.address, 22)
        let judgement = judge(["allow api.example 22"]).judgeOpaque(destination: ssh)
        #expect(judgement.route == .dial(ssh))
        #expect(judgement.name == name)
        #expect(judgement.verdict.basis == .name)
        #expect(judge(["allow api.example 443"]).judgeOpaque(destination: ssh).route == .refuse)
        #expect(judge(["allow api.example 22"], seconds: 300).judgeOpaque(destination: ssh).route == .refuse)
        #expect(judge(["allow other.example"]).judgeOpaque(destination: ssh).route == .refuse)
    }

    @Test func anOpaqueProtocolPassesByAddressOrDefault() {
        let byAddress = judge(["allow 203.0.113.0/24"]).judgeOpaque(destination: open)
        #expect(byAddress.route == .dial(open))
        #expect(byAddress.name == nil)
        #expect(judge([], defaultAction: .allow).judgeOpaque(destination: unknown).route == .dial(unknown))
        #expect(judge([]).judgeOpaque(destination: unknown).verdict.reason == .default)
    }

    @Test func inReportModeAnOpaqueProtocolIsToldByItsPinFirst() {
        let pin = judge(["allow api.example"], mode: .report).judgeOpaque(destination: pinned)
        #expect(pin.route == .dial(pinned))
        #expect(!pin.verdict.isReportOnly)
        let passed = judge([], mode: .report).judgeOpaque(destination: pinned)
        #expect(passed.route == .dial(pinned))
        #expect(passed.verdict.isReportOnly)
        #expect(judge([], mode: .report).judgeOpaque(destination: guarded).route == .refuse)
    }

    // MARK: What the proxy is asked for

    @Test func anAuthorityMayBeResolvedWhenItCouldBeAllowed() {
        #expect(judge(["allow *.example"]).judgeAuthority(name: name) == nil)
        #expect(judge(["allow api.example 8443"]).judgeAuthority(name: name) == nil)
        let denied = judge(["allow other.example"]).judgeAuthority(name: name)
        #expect(denied?.route == .refuse)
        #expect(denied?.verdict.reason == .default)
        // A name above an allowed one is denied all the same.
        let above = judge(["allow www.api.example"]).judgeAuthority(name: name)
        #expect(above?.verdict.action == .deny)
        #expect(judge([], mode: .report).judgeAuthority(name: name) == nil)
    }

    @Test func anAuthorityIsDialledAtTheAddressesThatAreAllowed() {
        let judge = judge(["deny 198.51.100.0/24", "allow api.example 443"])
        let addresses = [guarded, pinned, open, unknown].map(\.address)
        let (judgement, endpoints) = judge.judgeResolved(name: name, port: 443, addresses: addresses)
        #expect(endpoints == [open, unknown])
        #expect(judgement.route == .dial(open))
        #expect(judgement.verdict.basis == .name)
        let refused = judge.judgeResolved(name: name, port: 443, addresses: [guarded.address, pinned.address])
        #expect(refused.0.route == .refuse)
        #expect(refused.0.verdict.reason == .guardRange)
        #expect(refused.1.isEmpty)
        let none = judge.judgeResolved(name: name, port: 443, addresses: [])
        #expect(none.0.verdict.reason == .unresolvable)
        #expect(judge.judgeResolved(name: name, port: 80, addresses: [open.address]).0.route == .refuse)
    }

    @Test func inATunnelOnlyTheAuthoritysOwnNameMayBeShown() {
        let judge = judge(["allow *.example"])
        #expect(judge.judgeTunnelled(name: name, authority: name, destination: open).route == .dial(open))
        let mismatch = judge.judgeTunnelled(name: other, authority: name, destination: open)
        #expect(mismatch.route == .refuse)
        #expect(mismatch.verdict.reason == .nameAddressMismatch)
        let inside = judge.judgeTunnelled(name: name, authority: name, destination: guarded)
        #expect(inside.verdict.reason == .guardRange)
    }

    @Test func anAddressIsReachableByPinOrRule() {
        let judge = judge(["allow api.example", "allow 203.0.113.0/24"], seconds: 300)
        #expect(judge.judgeReachability(of: pinned) == nil)
        #expect(judge.judgeReachability(of: open) == nil)
        #expect(judge.judgeReachability(of: unknown)?.verdict.reason == .default)
        #expect(judge.judgeReachability(of: guarded)?.verdict.reason == .guardRange)
    }

    // MARK: After a change

    @Test func aLiveConnectionIsJudgedByWhatItWasLetInWith() {
        let judge = judge(["allow api.example"])
        #expect(judge.judgeAgain(name: name, destination: pinned, basis: .name).action == .allow)
        #expect(judge.judgeAgain(name: other, destination: pinned, basis: .name).action == .deny)
        // It was let in by its address; that the name is allowed now does not bind the name to the address.
        #expect(judge.judgeAgain(name: name, destination: unknown, basis: .address).action == .deny)
        #expect(judge.judgeAgain(name: nil, destination: pinned, basis: .name).action == .deny)
        // As is what report mode let pass, whatever a rule said of the name.
        let reported = self.judge(["deny api.example"], mode: .report).judge(name: name, destination: unknown).verdict
        #expect(reported.basis == .name && reported.shownBasis == .none)
        #expect(judge.judgeAgain(name: name, destination: unknown, basis: reported.shownBasis).action == .deny)
        let both = self.judge(["allow api.example", "allow 203.0.113.0/24"])
        let verdict = both.judgeAgain(name: name, destination: open, basis: .address)
        #expect(verdict.action == .allow)
        #expect(verdict.basis == .address)
    }
}
