import EgressPolicy
import NetPrimitives
import Testing

@testable import EgressCore

@Suite struct QuestionsTests {
    let start = MonotonicTime(nanoseconds: 5_000_000_000)
    let wallTime = WallTime(microseconds: 1_000_000)
    let subject = Questions.Subject(try! DomainName("new.example"))

    private func name(_ number: Int) throws -> Questions.Subject {
        Questions.Subject(try DomainName("n\(number).example"))
    }

    private func number(_ reception: Questions.Reception) throws -> UInt64 {
        guard case .waits(let question, _) = reception else {
            Issue.record("denied: \(reception)")
            return 0
        }
        return question.number
    }

    @Test func whoeverWantsTheSameJoinsOneQuestion() throws {
        var questions = Questions()
        let first = questions.ask(subject, at: start, wallTime)
        guard case .waits(let question, isNew: true) = first else { return #expect(Bool(false)) }
        #expect(question.number == 1)
        #expect(question.expiresAt == wallTime.advanced(bySeconds: 30))
        for port: UInt16 in [80, 443] {
            let web = Questions.Subject(subject.name, port: PortRange(port))
            guard case .waits(let joined, isNew: false) = questions.ask(web, at: start, wallTime) else {
                return #expect(Bool(false))
            }
            #expect(joined.number == 1)
        }
        #expect(questions.all.map(\.waiters) == [3])
        // Another port is another question.
        let other = Questions.Subject(subject.name, port: PortRange(8_443))
        #expect(try number(questions.ask(other, at: start, wallTime)) == 2)
        #expect(other.rule(comment: nil).ports == [PortRange(8_443)!])
        #expect(subject.rule(comment: nil).ports.map(\.lower) == [80, 443])
        #expect(subject.rule(comment: nil).transport == .tcp)
    }

    @Test func anUnansweredQuestionIsDeniedAndNotAskedAgainForAWhile() throws {
        var questions = Questions()
        _ = questions.ask(subject, at: start, wallTime)
        let deadline = start.advanced(bySeconds: 30)
        #expect(questions.nextDeadline == deadline)
        #expect(questions.expire(at: start.advanced(bySeconds: 29)).isEmpty)
        // Asking again does not buy it time.
        _ = questions.ask(subject, at: start.advanced(bySeconds: 29), wallTime)
        #expect(questions.expire(at: deadline).map(\.subject) == [subject])
        #expect(questions.nextDeadline == nil)
        #expect(questions.ask(subject, at: deadline, wallTime) == .denied(.askDeadline))
        let silence = questions.limits.silenceSeconds
        #expect(
            questions.ask(subject, at: deadline.advanced(bySeconds: silence - 1), wallTime) == .denied(.askDeadline)
        )
        #expect(try number(questions.ask(subject, at: deadline.advanced(bySeconds: silence), wallTime)) == 2)
    }

    @Test func aNoHoldsForAWhileAndAnswersOnce() throws {
        var questions = Questions()
        _ = questions.ask(subject, at: start, wallTime)
        #expect(questions.deny(1, at: start)?.subject == subject)
        #expect(questions.deny(1, at: start) == nil)
        #expect(questions.ask(subject, at: start, wallTime) == .denied(.askDenied))
        #expect(questions.deny(7, at: start) == nil)
    }

    @Test func whatThePolicyDecidedIsAskedAnewLater() throws {
        var questions = Questions()
        _ = questions.ask(subject, at: start, wallTime)
        #expect(questions.close(1) != nil)
        #expect(try number(questions.ask(subject, at: start, wallTime)) == 2)
        questions.sendAll()
        #expect(questions.all.map(\.waiters) == [0])
    }

    @Test func waitersOfAQuestionAreBounded() throws {
        var questions = Questions()
        for _ in 0..<questions.limits.maximumWaiters { _ = try number(questions.ask(subject, at: start, wallTime)) }
        #expect(questions.ask(subject, at: start, wallTime) == .denied(.askLimit))
        #expect(questions.all.map(\.waiters) == [questions.limits.maximumWaiters])
    }

    // 10,000 questions, and a person who never answers: what is held and remembered stays bounded, and whoever comes later
    // is asked about again.
    @Test func aFloodIsADenial() throws {
        var questions = Questions()
        var asked = 0
        for second in 0..<1_000 as Range<UInt64> {
            let now = start.advanced(bySeconds: second)
            _ = questions.expire(at: now)
            for index in 0..<10 {
                switch questions.ask(try name(Int(second) * 10 + index), at: now, wallTime) {
                case .waits: asked += 1
                case .denied(let reason): #expect(reason == .askLimit)
                }
            }
            #expect(questions.all.count <= questions.limits.maximumOpen)
            #expect(questions.rememberedCount <= questions.limits.maximumPerMinute * 6)
        }
        // No more than so many in each of 17 minutes.
        #expect(asked <= 17 * questions.limits.maximumPerMinute)
        let later = start.advanced(bySeconds: 1_100)
        _ = questions.expire(at: later)
        #expect(try number(questions.ask(subject, at: later, wallTime)) == UInt64(asked) + 1)
    }

    @Test(arguments: [
        ("deny new.example", false), ("deny *.example", false), ("allow new.example", false),
        ("allow other.example", true),
    ])
    func onlyWhatNoRuleSpeaksOfIsOpen(rule: String, isOpen: Bool) throws {
        let words = rule.split(separator: " ").map(String.init)
        let action = try #require(RuleAction(rawValue: words[0]))
        let rules = [Rule(action, try Target(parsing: words[1]))]
        #expect(subject.isOpen(in: CompiledPolicy(Policy(rules: rules)), at: wallTime) == isOpen)
        // An operator's rule stands before whatever an answer could add.
        guard action == .deny else { return }
        let always = CompiledPolicy(Policy(), always: AlwaysRules(deny: rules))
        #expect(!subject.isOpen(in: always, at: wallTime))
    }

    @Test func openPortsOfAKnownNameAreAskedAbout() throws {
        let policy = CompiledPolicy(Policy(rules: [Rule(.allow, .name(subject.name), ports: [PortRange(443)!])]))
        #expect(subject.isOpen(in: policy, at: wallTime))
        #expect(Questions.Subject(subject.name, port: PortRange(22)).isOpen(in: policy, at: wallTime))
    }

    @Test func whatIsAllowedOnceStandsBehindEverythingAndIsNoRule() throws {
        let once = subject.rule(expiresAt: wallTime.advanced(bySeconds: 30), comment: nil)
        let denial = Rule(.deny, .name(subject.name), ports: [PortRange(80)!])
        let policy = CompiledPolicy(Policy(rules: [denial])).allowing(once: [once])
        func verdict(_ port: UInt16, after seconds: Int64 = 0) -> Verdict {
            let flow = Flow(name: subject.name, address: nil, port: port, transport: .tcp)
            return policy.decide(flow, at: wallTime.advanced(bySeconds: seconds))
        }
        #expect(verdict(443).isOnce)
        #expect(verdict(443).action == .allow)
        #expect(verdict(80).action == .deny)
        #expect(!verdict(80).leavesOpen)
        #expect(verdict(443, after: 30) == Verdict(.deny, .default))
        #expect(policy.policy.rules.count == 1)
    }

    @Test func whatWasAllowedOnceLivesUntilARuleSpeaksAgainstIt() throws {
        let destination = Endpoint(IPAddress("203.0.113.7")!, 443)
        func again(_ policy: Policy, once: Bool, at address: Endpoint? = nil) -> Verdict {
            TunnelJudge(policy: CompiledPolicy(policy), pins: PinTable(), now: start, wallTime: wallTime)
                .judgeAgain(name: subject.name, destination: address ?? destination, basis: .name, once: once)
        }
        #expect(again(Policy(), once: false).action == .deny)
        #expect(again(Policy(), once: true).action == .allow)
        #expect(again(Policy(), once: true).isOnce)
        #expect(again(Policy(rules: [Rule(.deny, .name(subject.name))]), once: true).action == .deny)
        let guarded = Endpoint(IPAddress("10.0.0.1")!, 443)
        #expect(again(Policy(), once: true, at: guarded).reason == .guardRange)
    }

    @Test func aNewAnswerTakesThePlaceOfOneThatHasExpired() throws {
        let comment = Policy.askedComment(author: "alice", at: wallTime)
        #expect(comment == "asked 1970-01-01T00:00:01.000000Z, allowed by alice")
        let first = subject.rule(expiresAt: wallTime.advanced(bySeconds: 60), comment: comment)
        let own = Rule(.allow, .name(subject.name), expiresAt: wallTime, comment: "the operator's own")
        var policy = Policy(rules: [own]).allowing(asked: first, at: wallTime)
        #expect(policy.rules == [own, first])
        let later = wallTime.advanced(bySeconds: 60)
        let second = subject.rule(comment: Policy.askedComment(author: "bob", at: later))
        policy = policy.allowing(asked: second, at: later)
        #expect(policy.rules == [own, second])
    }
}
