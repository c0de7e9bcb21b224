import NetPrimitives
import Testing
import WireFormat

@Suite struct DNSResponseTests {
    let plain = try! DNSQuery(parsing: DNSBytes(id: 0xabcd).question("wWw.Example").bytes)

    @Test func echoesTheQuestionInTheClientsCase() throws {
        let owner = DNSWireName(try DomainName("www.example"))
        let address = DNSResourceRecord(owner, .a, ttl: 60, data: [198, 51, 100, 7])
        let bytes = DNSResponse(.noError, answers: [address]).encode(for: plain, over: .udp)
        let expected = DNSBytes(id: 0xabcd, flags: 0x8180, answers: 1).question("wWw.Example")
            .record(DNSBytes.questionPointer, 1, [198, 51, 100, 7], ttl: 60)
        #expect(bytes == expected.bytes)
    }

    @Test func isWhatItsReaderReads() throws {
        let (www, web) = (DNSWireName(try DomainName("www.example")), DNSWireName(try DomainName("web.example")))
        let records = [
            DNSResourceRecord(www, .cname, ttl: 60, data: web.bytes),
            DNSResourceRecord(web, .a, ttl: 30, data: [198, 51, 100, 7]),
            DNSResourceRecord(web, .a, ttl: 30, data: [198, 51, 100, 8]),
        ]
        let bytes = DNSResponse(.noError, answers: records).encode(for: plain, over: .tcp)
        #expect(try DNSMessage(decoding: bytes).answers == records)
        // The second and third owner are pointers to the alias's target.
        #expect(bytes.count == 12 + 17 + (12 + 13) + 2 * (12 + 4))
    }

    @Test func speaksEDNSOnlyToThoseWhoDo() throws {
        let blocked = DNSResponse(.nameError, extendedError: .blocked("why"))
        #expect(try DNSMessage(decoding: blocked.encode(for: plain, over: .udp)).code == .nameError)
        #expect(blocked.encode(for: plain, over: .udp).count == 12 + 17)

        let query = try edns(size: 1_232)
        let bytes = blocked.encode(for: query, over: .udp)
        let option: [UInt8] = [0, 15, 0, 5, 0, 15] + Array("why".utf8)
        #expect(bytes.suffix(option.count + 11) == [0, 0, 41, 0x04, 0xd0, 0, 0, 0, 0, 0, UInt8(option.count)] + option)
        #expect(try DNSMessage(decoding: bytes).code == .nameError)
    }

    @Test func splitsLargeCodes() throws {
        let bytes = DNSResponse(.badVersion).encode(for: try edns(size: 1_232, version: 1), over: .udp)
        #expect(try DNSMessage(decoding: bytes).code == .badVersion)
        #expect(bytes[3] & 0xf == 0)
    }

    @Test(
        arguments: [
            (nil, 512), (0, 512), (511, 512), (512, 512), (600, 600), (1_232, 1_232), (4_096, 1_232), (65_535, 1_232),
        ] as [(UInt16?, Int)]
    )
    func truncatesToWhatTheClientTakes(size: UInt16?, limit: Int) throws {
        let query = try size.map { try edns(size: $0) } ?? plain
        let owner = DNSWireName(try DomainName("www.example"))
        let overhead = 12 + 17 + (size == nil ? 0 : 11)
        let fitting = DNSResourceRecord(owner, .txt, ttl: 1, data: Array(repeating: 7, count: limit - overhead - 12))
        let full = DNSResponse(.noError, answers: [fitting]).encode(for: query, over: .udp)
        #expect(full.count == limit)
        #expect(try !DNSMessage(decoding: full).isTruncated)

        let larger = DNSResourceRecord(owner, .txt, ttl: 1, data: fitting.data + [7])
        let cut = DNSResponse(.noError, answers: [larger]).encode(for: query, over: .udp)
        let message = try DNSMessage(decoding: cut)
        #expect(message.isTruncated)
        #expect(message.answers.isEmpty)
        #expect(message.questions.first?.name == query.wireName)
        #expect(
            try DNSMessage(decoding: DNSResponse(.noError, answers: [larger]).encode(for: query, over: .tcp)).answers
                == [larger]
        )
    }

    @Test func failsWhatDoesNotFitAtAll() throws {
        let owner = DNSWireName(try DomainName("www.example"))
        let record = DNSResourceRecord(owner, .txt, ttl: 1, data: Array(repeating: 7, count: 60_000))
        let bytes = DNSResponse(.noError, answers: [record, record]).encode(for: plain, over: .tcp)
        let message = try DNSMessage(decoding: bytes)
        #expect(message.code == .serverFailure)
        #expect(!message.isTruncated)
    }

    @Test func vouchesOnlyToThoseWhoAsk() throws {
        var response = DNSResponse(.noError)
        response.isAuthenticData = true
        #expect(try !DNSMessage(decoding: response.encode(for: plain, over: .udp)).isAuthenticData)
        let asking = try DNSQuery(parsing: DNSBytes(flags: 0x0120).question("www.example").bytes)
        #expect(try DNSMessage(decoding: response.encode(for: asking, over: .udp)).isAuthenticData)
    }

    private func edns(size: UInt16, version: UInt8 = 0) throws -> DNSQuery {
        try DNSQuery(
            parsing: DNSBytes(additionals: 1).question("wWw.Example").opt(size: size, version: version).bytes
        )
    }
}

@Suite struct DNSUpstreamQueryTests {
    @Test func isAPlainQueryInRandomCase() throws {
        var generator = SeededGenerator(seed: 1)
        let name = try DomainName("a-rather-long-name.with-several.labels.example")
        let query = DNSUpstreamQuery(name, .aaaa, isDNSSECOK: true, using: &generator)
        let parsed = try DNSQuery(parsing: query.encode())
        #expect(parsed.id == query.id)
        #expect(parsed.name == .success(name))
        #expect(parsed.wireName == query.question.name)
        #expect(parsed.wireName != DNSWireName(name))
        #expect(parsed.type == .aaaa)
        #expect(parsed.recursionDesired)
        #expect(parsed.edns?.udpSize == 1_232)
        #expect(parsed.edns?.isDNSSECOK == true)
        #expect(DNSUpstreamQuery(name, .aaaa, isDNSSECOK: true, using: &generator).question != query.question)
    }

    @Test func isInLowerCaseForServersThatTellCasesApart() throws {
        var generator = SeededGenerator(seed: 1)
        let name = try DomainName("a-rather-long-name.with-several.labels.example")
        let query = DNSUpstreamQuery(name, .a, isDNSSECOK: true, inLowerCase: true, using: &generator)
        #expect(query.question.name == DNSWireName(name))
        #expect(query.isDNSSECOK)
        #expect(try DNSQuery(parsing: query.encode()).id == query.id)
    }

    @Test func everyLetterOfALongNameVaries() throws {
        var generator = SeededGenerator(seed: 2)
        let label = String(repeating: "a", count: 62)
        let name = try DomainName([label, label, label, "example"].joined(separator: "."))
        var everUpper = Array(repeating: false, count: 255)
        for _ in 0..<40 {
            let wire = DNSUpstreamQuery(name, .a, isDNSSECOK: false, using: &generator).question.name.bytes
            for (index, byte) in wire.enumerated() where byte == UInt8(ascii: "A") { everUpper[index] = true }
        }
        for (index, byte) in DNSWireName(name).bytes.enumerated() where byte == UInt8(ascii: "a") {
            #expect(everUpper[index] || index > 189)
        }
    }

    @Test func believesOnlyItsOwnAnswer() throws {
        var generator = SeededGenerator(seed: 3)
        let query = DNSUpstreamQuery(try DomainName("api.example"), .a, isDNSSECOK: false, using: &generator)
        func isAnswered(id: UInt16, flags: UInt16 = 0x8180, name: [UInt8], type: UInt16 = 1, recordClass: UInt16 = 1)
            throws
            -> Bool
        {
            let bytes = DNSBytes(id: id, flags: flags).question(wire: name, type, recordClass: recordClass).bytes
            return query.isAnswered(by: try DNSMessage(decoding: bytes))
        }
        let name = query.question.name.bytes
        #expect(try isAnswered(id: query.id, name: name))
        #expect(try !isAnswered(id: query.id &+ 1, name: name))
        #expect(try !isAnswered(id: query.id, flags: 0x0100, name: name))
        #expect(try !isAnswered(id: query.id, flags: 0x8980, name: name))
        #expect(try !isAnswered(id: query.id, name: name, type: 28))
        #expect(try !isAnswered(id: query.id, name: name, recordClass: 3))
        #expect(try !isAnswered(id: query.id, name: DNSWireName(try DomainName("api.example")).bytes))
        #expect(try !isAnswered(id: query.id, name: DNSBytes.name("other.example")))
        #expect(
            try !query.isAnswered(by: DNSMessage(decoding: DNSBytes(id: query.id, flags: 0x8180, questions: 0).bytes))
        )
    }
}
