import EgressCore
import NetPrimitives
import Testing
import WireFormat

@Suite struct DNSAnswerSanitizerTests {
    typealias Server = DNSServerDouble
    let sanitizer = DNSAnswerSanitizer()

    @Test func takesTheAddressesOfTheQuestion() throws {
        let query = Server.query("api.example")
        let records = [
            Server.address("api.example", "198.51.100.7"), Server.address("api.example", "198.51.100.8", ttl: 60),
        ]
        let answer = try sanitizer.sanitize(Server.answer(query, records), for: query)
        #expect(answer.code == .noError)
        #expect(answer.records == records)
        #expect(answer.addresses == [IPAddress("198.51.100.7"), IPAddress("198.51.100.8")])
        #expect(answer.ttl == 60)
        #expect(answer.isAuthenticData)
    }

    @Test func followsAliasesInWhateverOrderTheyCome() throws {
        let query = Server.query("www.example")
        let (first, second) = (
            Server.alias("www.example", "lb.example", ttl: 20), Server.alias("lb.example", "a.cdn.example")
        )
        let address = Server.address("a.cdn.example", "198.51.100.7")
        let answer = try sanitizer.sanitize(Server.answer(query, [address, second, first]), for: query)
        #expect(answer.chain.map(\.description) == ["www.example", "lb.example", "a.cdn.example"])
        #expect(answer.records == [first, second, address])
        #expect(answer.ttl == 20)
    }

    // N6
    @Test func dropsWhatTheQuestionDoesNotLeadTo() throws {
        let query = Server.query("www.example")
        let wanted = Server.address("www.example", "198.51.100.7")
        let foreign = [
            Server.address("bank.example", "203.0.113.1"),
            Server.address("example", "203.0.113.2"),
            Server.address("x.www.example", "203.0.113.3"),
            Server.address("www.example", "2001:db8::1"),
            Server.alias("bank.example", "www.example"),
            DNSResourceRecord(Server.name("www.example"), .txt, ttl: 1, data: [1, 0x61]),
        ]
        let answer = try sanitizer.sanitize(Server.answer(query, foreign + [wanted]), for: query)
        #expect(answer.records == [wanted])
        #expect(answer.chain.count == 1)
        #expect(answer.ttl == 300)
    }

    @Test func believesTheFirstOfTwoAliases() throws {
        let query = Server.query("www.example")
        let records = [
            Server.alias("www.example", "one.example"), Server.alias("www.example", "two.example"),
            Server.address("one.example", "198.51.100.1"), Server.address("two.example", "198.51.100.2"),
        ]
        let answer = try sanitizer.sanitize(Server.answer(query, records), for: query)
        #expect(answer.addresses == [IPAddress("198.51.100.1")])
    }

    @Test func endsEndlessChains() {
        let query = Server.query("a.example")
        let loop = [Server.alias("a.example", "b.example"), Server.alias("b.example", "a.example")]
        expectFailure(.endlessChain, Server.answer(query, loop), query)
        expectFailure(.endlessChain, Server.answer(query, [Server.alias("a.example", "a.example")]), query)
        func chain(_ count: Int) -> [DNSResourceRecord] {
            [Server.alias("a.example", "n1.example")]
                + (1..<count).map { Server.alias("n\($0).example", "n\($0 + 1).example") }
        }
        expectFailure(.endlessChain, Server.answer(query, chain(16)), query)
        #expect(throws: Never.self) { try sanitizer.sanitize(Server.answer(query, chain(15)), for: query) }
    }

    // N5
    @Test func takesSixtyFourAddresses() throws {
        let query = Server.query("many.example")
        let records = (0..<3_000).map { Server.address("many.example", "198.51.\($0 >> 8).\($0 & 255)") }
        let answer = try sanitizer.sanitize(Server.answer(query, records.prefix(40) + records), for: query)
        #expect(answer.records == Array(records.prefix(64)))
        #expect(!answer.isAuthenticData)
    }

    @Test func takesEveryAddressOnce() throws {
        let query = Server.query("api.example")
        let record = Server.address("api.example", "198.51.100.7")
        let answer = try sanitizer.sanitize(Server.answer(query, [record, record, record]), for: query)
        #expect(answer.records == [record])
    }

    @Test func keepsNothingForLongerThanADay() throws {
        let query = Server.query("www.example")
        let records = [
            Server.alias("www.example", "lb.example", ttl: 604_800),
            Server.address("lb.example", "198.51.100.7", ttl: 604_800),
        ]
        let answer = try sanitizer.sanitize(Server.answer(query, records), for: query)
        #expect(answer.records.map(\.ttl) == [86_400, 86_400])
        #expect(answer.ttl == 86_400)
    }

    @Test func givesTheAliasRecordItselfToWhoAsksForIt() throws {
        let query = Server.query("www.example", .cname)
        let alias = Server.alias("www.example", "lb.example")
        let answer = try sanitizer.sanitize(
            Server.answer(query, [alias, Server.alias("lb.example", "a.example")]),
            for: query
        )
        #expect(answer.records == [alias])
    }

    // D5
    @Test func cleansServiceBindings() throws {
        let query = Server.query("www.example", .https, isDNSSECOK: true)
        let owner = Server.name("www.example")
        let clean: [UInt8] = [0, 1, 0, 0, 1, 0, 3, 2, 0x68, 0x32]
        let hinted = DNSResourceRecord(owner, .https, ttl: 300, data: clean + [0, 4, 0, 4, 192, 0, 2, 1])
        let hidden = DNSResourceRecord(owner, .https, ttl: 300, data: clean + [0, 5, 0, 1, 9])
        let demanding = DNSResourceRecord(owner, .https, ttl: 300, data: [0, 1, 0, 0, 0, 0, 2, 0, 5, 0, 5, 0, 1, 9])
        let signature = DNSResourceRecord(owner, .rrsig, ttl: 300, data: [0, 65] + Array(repeating: 0, count: 40))
        let answer = try sanitizer.sanitize(
            Server.answer(query, [demanding, hinted, hidden, signature]),
            for: query
        )
        #expect(answer.records == [DNSResourceRecord(owner, .https, ttl: 300, data: clean)])
        #expect(!answer.isAuthenticData)
    }

    @Test func passesSignaturesToWhoAsksForThem() throws {
        let signature = DNSResourceRecord(
            Server.name("www.example"),
            .rrsig,
            ttl: 300,
            data: [0, 1] + Array(repeating: 0, count: 40)
        )
        let foreign = DNSResourceRecord(
            Server.name("www.example"),
            .rrsig,
            ttl: 300,
            data: [0, 16] + Array(repeating: 0, count: 40)
        )
        let address = Server.address("www.example", "198.51.100.7")
        for asks in [false, true] {
            let query = Server.query("www.example", isDNSSECOK: asks)
            let answer = try sanitizer.sanitize(Server.answer(query, [address, signature, foreign]), for: query)
            #expect(answer.records == (asks ? [address, signature] : [address]))
        }
    }

    // Found by fuzzing.
    @Test func givesSignaturesOnceToWhoAsksForThemByName() throws {
        let query = Server.query("www.example", .rrsig, isDNSSECOK: true)
        let owner = Server.name("www.example")
        // Of an alias that is not there, and of the type that was asked for.
        for covered: UInt8 in [5, 46] {
            let data = [0, covered] + Array(repeating: 0, count: 40)
            let signature = DNSResourceRecord(owner, .rrsig, ttl: 300, data: data)
            let answer = try sanitizer.sanitize(Server.answer(query, [signature]), for: query)
            #expect(answer.records == [signature])
        }
    }
}

// MARK: - Negative answers and failures

extension DNSAnswerSanitizerTests {
    @Test func keepsNegativeAnswersForAsLongAsTheirZoneSays() throws {
        let query = Server.query("no.example")
        for (code, minimum, expected) in [
            (.nameError, 60, 60), (.noError, 60, 60), (.nameError, 7_200, 300),
        ] as [(DNSResponseCode, UInt16, UInt32)] {
            let zone = Server.zone("example", minimum: minimum)
            let answer = try sanitizer.sanitize(Server.answer(query, code: code, [], authorities: [zone]), for: query)
            #expect(answer.code == code)
            #expect(answer.records.isEmpty)
            #expect(answer.authorities.map(\.owner) == [Server.name("example")])
            #expect(answer.authorities.first?.ttl == expected)
            #expect(answer.ttl == expected)
        }
    }

    @Test func doesNotKeepNegativeAnswersWithoutTheirZone() throws {
        let query = Server.query("no.example")
        let foreign = [Server.zone("other", minimum: 60), Server.zone("x.no.example", minimum: 60)]
        let answer = try sanitizer.sanitize(
            Server.answer(query, code: .nameError, [], authorities: foreign),
            for: query
        )
        #expect(answer.authorities.isEmpty)
        #expect(answer.ttl == 0)
    }

    @Test func keepsTheChainOfANegativeAnswer() throws {
        let query = Server.query("www.example")
        let alias = Server.alias("www.example", "gone.cdn.test", ttl: 30)
        let zone = Server.zone("cdn.test", minimum: 60)
        let stray = Server.address("gone.cdn.test", "198.51.100.7")
        let answer = try sanitizer.sanitize(
            Server.answer(query, code: .nameError, [alias, stray], authorities: [zone]),
            for: query
        )
        #expect(answer.records == [alias])
        #expect(answer.ttl == 30)
        #expect(answer.authorities.count == 1)
    }

    @Test func isNoAnswerToAnotherQuestion() {
        let (query, other) = (Server.query("a-long-name.example"), Server.query("a-long-name.example"))
        let answer = Server.answer(query, [Server.address("a-long-name.example", "198.51.100.7")])
        expectFailure(.mismatched, answer, other)
        var otherIdentifier = answer
        otherIdentifier[1] ^= 1
        expectFailure(.mismatched, otherIdentifier, query)
        var otherCase = answer
        otherCase[13] ^= 0x20
        expectFailure(.mismatched, otherCase, query)
    }

    @Test(arguments: [.serverFailure, .refused, .formatError, .notImplemented] as [DNSResponseCode])
    func isNoAnswerWhenTheServerFails(code: DNSResponseCode) {
        let query = Server.query("api.example")
        expectFailure(.code(code), Server.answer(query, code: code, []), query)
    }

    @Test func isNoAnswerWhenRecordsAreMissing() {
        let query = Server.query("api.example")
        var bytes = Server.answer(query, [])
        bytes[2] |= 0x02
        expectFailure(.truncated, bytes, query)
    }

    @Test func isNoAnswerWhenMalformed() throws {
        let query = Server.query("api.example")
        let bytes = Server.answer(query, [Server.address("api.example", "198.51.100.7")])
        for count in 0..<bytes.count {
            #expect(throws: DNSAnswerSanitizer.Failure.self) {
                try sanitizer.sanitize(Array(bytes.prefix(count)), for: query)
            }
        }
    }

    private func expectFailure(_ failure: DNSAnswerSanitizer.Failure, _ bytes: [UInt8], _ query: DNSUpstreamQuery) {
        #expect(throws: failure) { try sanitizer.sanitize(bytes, for: query) }
    }
}

// MARK: - Addresses that must not be used

extension DNSAnswerSanitizerTests {
    // N4
    @Test func removesAddresses() throws {
        let query = Server.query("www.example")
        let alias = Server.alias("www.example", "lb.example")
        let good = Server.address("lb.example", "198.51.100.7")
        let bad = Server.address("lb.example", "10.0.0.1")
        let answer = try sanitizer.sanitize(Server.answer(query, [alias, bad, good]), for: query)
        let (usable, removed) = answer.removingAddresses { $0 != IPAddress("10.0.0.1") }
        #expect(usable.records == [alias, good])
        #expect(removed == [IPAddress("10.0.0.1")])
        #expect(!usable.isAuthenticData)
        #expect(answer.removingAddresses { _ in true }.answer == answer)
    }
}
