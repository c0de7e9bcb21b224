import EgressCore
import EgressPolicy
import Foundation
import NetPrimitives
import Reactor
import Testing
import WireFormat

@testable import Datapath
@testable import Nftables

@Suite(.serialized) struct DNSResolverTests {
    private func stage(_ targets: String..., limits: DNSResolver.Limits = .init()) throws -> ResolverStage {
        try ResolverStage(Policy(rules: try targets.map { Rule(.allow, try Target(parsing: $0)) }), limits: limits)
    }

    @Test func releasesAnAnswerOnlyWhenItIsPinned() throws {
        let stage = try stage("api.example")
        stage.server.answerAddresses("198.51.100.7", "2001:db8:1::7")
        let (answers, sets) = try stage.run {
            let four = try DNSProgram.ask("api.example")
            let pinned4 = try list("pinned4")
            let six = try DNSProgram.ask("api.example", .aaaa, of: DNSProgram.someServer6)
            return ([four, six], [pinned4, try list("pinned6")])
        }
        #expect(answers.map { $0.answers.first?.address } == [IPAddress("198.51.100.7"), IPAddress("2001:db8:1::7")])
        #expect(sets[0].contains("198.51.100.7"))
        #expect(sets[1].contains("2001:db8:1::7"))
        #expect(stage.server.asked == ["api.example A", "api.example AAAA"])
        #expect(stage.records == ["dns.allowed api.example rule", "dns.allowed api.example rule"])
    }

    // D1
    @Test func neverAsksForADeniedName() throws {
        let stage = try stage("api.example")
        let answer = try stage.run { try DNSProgram.ask("secret.other.example", .txt) }
        #expect(answer.code == .nameError)
        #expect(stage.server.asked.isEmpty)
        #expect(stage.records == ["dns.denied secret.other.example default"])
    }

    /// Somebody outside would be asked once more, or the next server for the first time.
    @Test func givesUpLookingForWhatIsNoLongerAllowed() throws {
        let stage = try stage("api.example")
        let (loop, attachment) = (stage.loop, stage.attachment)
        stage.server.answer = { _ in
            loop.schedule(at: loop.now) { try? attachment.replacePolicy(with: CompiledPolicy(Policy(), generation: 2)) }
            return nil
        }
        let answer = try stage.run { try DNSProgram.ask("api.example") }
        #expect(answer.code == .nameError)
        #expect(stage.resolver.isQuiet)
        #expect(stage.server.asked == ["api.example A"])
        #expect(Set(stage.records) == ["policy.changed - -", "dns.denied api.example default"])
    }

    @Test func answersFromTheCacheAndPinsAgain() throws {
        let stage = try stage("api.example")
        stage.server.answerAddresses("198.51.100.7")
        let (answers, sets) = try stage.run {
            let first = try DNSProgram.ask("api.example")
            try shell("nft list ruleset > /dev/null; sleep 1.1")
            let aged = try list("pinned4")
            return ([first, try DNSProgram.ask("api.example")], [aged, try list("pinned4")])
        }
        #expect(answers.map(\.answers.count) == [1, 1])
        #expect(answers[1].answers[0].ttl < 300)
        #expect(stage.server.asked.count == 1)
        // 300 seconds and the grace of an hour, anew.
        #expect(!sets[0].contains("expires 1h4m59"))
        #expect(sets[1].contains("expires 1h4m59") || sets[1].contains("expires 1h5m"))
    }

    @Test func whatArrivesTogetherIsPinnedTogether() throws {
        let stage = try stage("*.example")
        stage.server.answerAddresses("198.51.100.7")
        let names = (0..<40).map { "n\($0).example" }
        let asked = DispatchSemaphore(value: 0)
        // The loop sees all of them at once.
        stage.loop.schedule(at: stage.loop.now) { asked.wait() }
        let before = stage.table.netlink.commitCount
        let replies = try stage.run {
            let sockets = try names.map { name in
                let socket = try BlockingSocket(.datagram, to: DNSProgram.someServer)
                try socket.send(DNSProgram.query(name, id: 7))
                return socket
            }
            asked.signal()
            return try sockets.map { try $0.receive(upTo: 512) }
        }
        // An answer each, with one record.
        #expect(replies.allSatisfy { $0[..<8] == [0, 7, 0x81, 0x80, 0, 1, 0, 1] })
        #expect(stage.server.asked.count == 40)
        for name in names { #expect(stage.attachment.pinner.table.holds(try DomainName(name))) }
        #expect((1..<20).contains(stage.table.netlink.commitCount - before))
        let counts = stage.attachment.latencies.counts
        #expect(counts.pins.total == 40)
        #expect(counts.answers[.upstream].total == 40)
    }

    @Test func countsAnswersByWhatBecameOfThem() throws {
        let stage = try stage("api.example")
        stage.server.answer = { query in
            usleep(20_000)
            let data = IPAddress("198.51.100.7")!.networkBytes
            return DNSResponse(
                .noError,
                answers: [DNSResourceRecord(query.wireName.folded, query.type, ttl: 300, data: data)]
            )
        }
        _ = try stage.run {
            _ = try DNSProgram.ask("api.example")
            _ = try DNSProgram.ask("api.example")
            _ = try DNSProgram.ask("7.100.51.198.in-addr.arpa", .ptr)
            _ = try DNSProgram.ask("other.example")
            return try DNSProgram.ask("third.example")
        }
        let counts = stage.attachment.latencies.counts
        #expect(LatencyCounts.AnswerOutcome.allCases.map { counts.answers[$0].total } == [1, 1, 1, 2, 0])
        #expect(counts.answers[.upstream].sum > 20_000_000)
        // At once pinned anew from the cache only when its time has moved on.
        #expect((1...2).contains(counts.pins.total))
        #expect(counts.pins.sum > 0)
        #expect(counts.pins.sum < counts.answers[.upstream].sum)
    }

    @Test func asksNobodyAndSaysTheSameToWhoAsksAgainAtOnce() throws {
        let stage = try stage("api.example")
        stage.server.answerAddresses("198.51.100.7")
        let names = ["api.example", "other.example"]
        let replies = try stage.run {
            try names.map { name in
                try (1...5).map { (number: UInt16) in
                    let socket = try BlockingSocket(.datagram, to: DNSProgram.someServer)
                    try socket.send(DNSProgram.query(name, id: 0x0100 + number))
                    return try socket.receive(upTo: 512)
                }
            }
        }
        for replies in replies {
            #expect(replies.map { $0[0] } == [1, 1, 1, 1, 1])
            #expect(replies.map { $0[1] } == [1, 2, 3, 4, 5])
            // The TTL may have counted down between them.
            #expect(Set(replies.map(\.count)).count == 1)
        }
        #expect(stage.server.asked.count == 1)
        #expect(
            stage.records
                == names.flatMap { name in
                    Array(
                        repeating: name == "api.example" ? "dns.allowed \(name) rule" : "dns.denied \(name) default",
                        count: 5
                    )
                }
        )
        let counts = stage.attachment.latencies.counts
        #expect(LatencyCounts.AnswerOutcome.allCases.map { counts.answers[$0].total } == [4, 1, 0, 5, 0])
    }

    @Test func whatChangesIsSeenByWhoAsksAgainAtOnce() throws {
        let stage = try stage("api.example")
        stage.server.answerAddresses("198.51.100.7")
        let attachment = stage.attachment
        func ask() throws -> DNSResponseCode { try stage.run { try DNSProgram.ask("api.example") }.code }
        func askOften() throws -> Set<DNSResponseCode> { Set(try (0..<3).map { _ in try ask() }) }
        #expect(try askOften() == [.noError])
        try attachment.pause()
        // It cannot even be asked.
        #expect(throws: BlockingSocket.Failure.self) { try ask() }
        try attachment.resume()
        #expect(try askOften() == [.noError])
        try attachment.replacePolicy(with: CompiledPolicy(Policy(), generation: 2))
        #expect(try askOften() == [.nameError])
        stage.resolver.deniedAnswer = .refused
        #expect(try ask() == .refused)
        let rule = Rule(.allow, try Target(parsing: "api.example"))
        try attachment.replacePolicy(with: CompiledPolicy(Policy(rules: [rule]), generation: 3))
        #expect(try askOften() == [.noError])
        #expect(attachment.pinner.table.addressCount == 1)
    }

    @Test func asksOnceForWhatIsAskedAtOnce() throws {
        let stage = try stage("api.example")
        var held: [() -> Void] = []
        stage.server.answerAddresses("198.51.100.7")
        let answer = stage.server.answer
        stage.server.answer = { query in
            // The second program has asked by now.
            held.append {}
            usleep(200_000)
            return answer(query)
        }
        let codes = try stage.run {
            let one = try BlockingSocket(.datagram, to: DNSProgram.someServer)
            let two = try BlockingSocket(.datagram, to: DNSProgram.someServer)
            try one.send(DNSProgram.query("api.example", id: 1))
            try two.send(DNSProgram.query("API.example", id: 2))
            return [try one.receive(upTo: 512)[1], try two.receive(upTo: 512)[1]]
        }
        #expect(codes == [1, 2])
        #expect(stage.server.asked.count == 1)
        #expect(held.count == 1)
    }

    // N4
    @Test func releasesNoGuardedAddress() throws {
        let stage = try stage("*.example")
        stage.server.answerAddresses("10.0.0.1", "169.254.169.254", "fd00::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1")
        let answers = try stage.run { [try DNSProgram.ask("a.example"), try DNSProgram.ask("a.example", .aaaa)] }
        #expect(answers.map(\.code) == [.nameError, .nameError])
        #expect(answers.allSatisfy { $0.answers.isEmpty })
        #expect(stage.records == Array(repeating: "dns.denied a.example guard-range", count: 2))

        stage.server.answerAddresses("10.0.0.1", "198.51.100.7")
        let mixed = try stage.run { try DNSProgram.ask("b.example") }
        #expect(mixed.answers.map(\.address) == [IPAddress("198.51.100.7")])
    }

    @Test func failsWhenTheKernelDoesNotPin() throws {
        let stage = try stage("api.example")
        stage.server.answerAddresses("198.51.100.7")
        try stage.table.delete()
        let answer = try stage.run { try DNSProgram.ask("api.example", of: Endpoint(IPAddress("127.0.0.1")!, 64_053)) }
        #expect(answer.code == .serverFailure)
        #expect(answer.answers.isEmpty)
        #expect(stage.records == ["dns.denied api.example upstream-failed"])
    }

    @Test func failsWhenNoServerAnswers() throws {
        let stage = try stage("api.example")
        #expect(try stage.run { try DNSProgram.ask("api.example") }.code == .serverFailure)
        #expect(stage.records == ["dns.denied api.example upstream-failed"])
    }

    // N9
    @Test func judgesAgainWhatArrivesAfterThePolicyChanged() throws {
        let stage = try stage("api.example")
        stage.server.answerAddresses("198.51.100.7")
        let answer = stage.server.answer
        stage.server.answer = { [attachment = stage.attachment] query in
            #expect(throws: Never.self) {
                try attachment.replacePolicy(with: CompiledPolicy(Policy(), generation: 2))
            }
            return answer(query)
        }
        let message = try stage.run { try DNSProgram.ask("api.example") }
        #expect(message.code == .nameError)
        #expect(stage.attachment.pinner.table.addressCount == 0)
        #expect(try stage.run { try list("pinned4") }.contains("198.51.100.7") == false)
    }

    // D4
    @Test func endsTheBudgetBelowAWildcard() throws {
        let stage = try stage("*.wild.example", "exact.example")
        stage.server.answer = { _ in DNSResponse(.nameError) }
        let codes = try stage.run {
            try (0..<202).map { try DNSProgram.ask("n\($0).wild.example").code }
                + [try DNSProgram.ask("n3.wild.example").code, try DNSProgram.ask("exact.example").code]
        }
        #expect(codes.prefix(200).allSatisfy { $0 == .nameError })
        #expect(codes.dropFirst(200) == [.refused, .refused, .nameError, .nameError])
        #expect(stage.server.asked.count == 202)
        #expect(stage.records.filter { $0.hasSuffix("dns-budget") }.count == 2)
    }

    // N6
    @Test func recordsAliasesThatAreDeniedByThemselves() throws {
        let stage = try stage("www.example")
        let alias = DNSWireName(try DomainName("cdn.test"))
        stage.server.answer = { query in
            DNSResponse(
                .noError,
                answers: [
                    DNSResourceRecord(query.wireName.folded, .cname, ttl: 60, data: alias.bytes),
                    DNSResourceRecord(alias, .a, ttl: 60, data: [198, 51, 100, 7]),
                ]
            )
        }
        let answer = try stage.run { try DNSProgram.ask("www.example") }
        #expect(answer.answers.count == 2)
        #expect(stage.records == ["dns.allowed www.example rule", "dns.allowed cdn.test rule"])
        let pins = stage.attachment.pinner.table
        #expect(pins.holds(try DomainName("www.example")))
        #expect(!pins.holds(try DomainName("cdn.test")))
    }

    // B3
    @Test func boundsWhatWaits() throws {
        var limits = DNSResolver.Limits()
        limits.maximumPending = 4
        let stage = try stage("*.example", limits: limits)
        let codes = try stage.run {
            let socket = try BlockingSocket(.datagram, to: DNSProgram.someServer)
            for index in 0..<6 { try socket.send(DNSProgram.query("n\(index).example", id: UInt16(index))) }
            return try (0..<6).map { _ in try socket.receive(upTo: 512)[1] }
        }
        // The two that found no room are answered first.
        #expect(Set(codes.prefix(2)) == [4, 5])
        #expect(Set(codes) == [0, 1, 2, 3, 4, 5])
    }

    @Test func answersNothingThatIsNoQuery() throws {
        let stage = try stage("api.example")
        stage.server.answerAddresses("198.51.100.7")
        let reply = try stage.run {
            let socket = try BlockingSocket(.datagram, to: DNSProgram.someServer)
            var response = DNSProgram.query("api.example", id: 1)
            response[2] |= 0x80
            try socket.send(response)
            try socket.send([1, 2, 3])
            try socket.send([])
            try socket.send(DNSProgram.query("api.example", id: 2))
            return try socket.receive(upTo: 512)
        }
        #expect(reply[1] == 2)
    }

    @Test func resolvesForTheProxies() throws {
        let stage = try stage("api.example", "inner.example")
        stage.server.answerAddresses("198.51.100.7", "198.51.100.8", "2001:db8:1::7")
        var results: [String] = []
        for name in ["api.example", "other.example"] {
            stage.attachment.resolve(try DomainName(name)) { results.append("\($0)") }
        }
        try stage.serve { results.count == 2 }
        stage.server.answerAddresses("10.0.0.1")
        stage.attachment.resolve(try DomainName("inner.example")) { results.append("\($0)") }
        try stage.serve { results.count == 3 }
        #expect(results[0].contains("denied"))
        let expected: Result<[IPAddress], ResolutionFailure> = .success(
            ["2001:db8:1::7", "198.51.100.7", "198.51.100.8"].map { IPAddress($0)! }
        )
        #expect(results[1] == "\(expected)")
        #expect(results[2].contains("guardRange"))
        #expect(stage.attachment.pinner.table.addressCount == 3)
        #expect(stage.records.isEmpty)
    }
}
