import NetPrimitives
import Testing
import WireFormat

/// Thousands of damaged messages: a decoder returns or throws, and what it returns can be written and read again.
@Suite struct DNSMutationTests {
    private let spice: [[UInt8]] = [
        [0xc0, 12], [0xc0, 0], [0xc0, 0xff], [0xff, 0xff], [0], [63], [0x40], [0x80], [0, 41], [0, 64], [0, 5], [0, 6],
        [0, 1, 0, 1], [3, 0x61, 0x2e, 0x62],
    ]

    @Test func noQueryTraps() throws {
        var generator = SeededGenerator(seed: 0xd15)
        let seeds = [
            DNSBytes().question("wWw.Example", 28).bytes,
            DNSBytes(additionals: 1).question("a.b.c.d.example", 65).opt(dnssec: true, options: [0, 10, 0, 2, 1, 2])
                .bytes,
            DNSBytes(flags: 0x8180, answers: 1).question("a.example").record([0xc0, 12], 1, [192, 0, 2, 1]).bytes,
        ]
        var accepted = 0
        for round in 0..<20_000 {
            let bytes = generator.mutate(seeds[round % seeds.count], spice: spice)
            do {
                let query = try DNSQuery(parsing: bytes)
                accepted += 1
                check(query, bytes)
            } catch {
                #expect(error.reply == nil || error.reply?.count == 12)
            }
        }
        #expect(accepted > 500)
    }

    /// Every byte of an accepted query is accounted for, and its answer echoes it.
    private func check(_ query: DNSQuery, _ bytes: [UInt8]) {
        #expect(Array(bytes[12...]).starts(with: query.wireName.bytes))
        #expect((query.edns == nil) == (bytes.count == 12 + query.wireName.bytes.count + 4))
        let reply = DNSResponse(.nameError, extendedError: .blocked()).encode(for: query, over: .udp)
        #expect((try? DNSMessage(decoding: reply).questions.first?.name) == query.wireName)
    }

    @Test func noAnswerTraps() throws {
        var generator = SeededGenerator(seed: 0xd16)
        let pointer = DNSBytes.questionPointer
        let soa = [1, 0x6e] + pointer + [1, 0x68] + pointer + Array(repeating: 1, count: 20)
        let binding: [UInt8] = [0, 1, 0, 0, 0, 0, 2, 0, 1, 0, 1, 0, 3, 2, 0x68, 0x32, 0, 4, 0, 4, 192, 0, 2, 1]
        let seeds = [
            DNSBytes(flags: 0x8180, answers: 3, additionals: 1).question("www.example")
                .record(pointer, 5, [3, 0x77, 0x65, 0x62, 0xc0, 16])
                .record([3, 0x77, 0x65, 0x62, 0xc0, 16], 1, [198, 51, 100, 7])
                .record([0xc0, 41], 28, Array(repeating: 7, count: 16)).opt().bytes,
            DNSBytes(flags: 0x8183, authorities: 1).question("no.example").record([0xc0, 15], 6, soa).bytes,
            DNSBytes(flags: 0x8180, answers: 2).question("svc.example", 65)
                .record(pointer, 65, binding).record(pointer, 35, [0, 1, 0, 2, 1, 0x55, 0, 0] + pointer).bytes,
            DNSBytes(flags: 0x8180, answers: 2).question("mx.example", 15)
                .record(pointer, 15, [0, 10] + pointer).record(pointer, 33, [0, 1, 0, 2, 0, 3] + pointer).bytes,
        ]
        let query = DNSQuery(try DomainName("www.example"), .a)
        var accepted = 0
        for round in 0..<20_000 {
            let bytes = generator.mutate(seeds[round % seeds.count], spice: spice)
            guard let message = try? DNSMessage(decoding: bytes) else { continue }
            accepted += 1
            for record in message.answers + message.authorities {
                _ = (record.address, record.canonicalName, record.coveredType, record.negativeTTL, "\(record.owner)")
                _ = ServiceBinding.sanitize(record.data)
            }
            let response = DNSResponse(message.code, answers: message.answers, authorities: message.authorities)
            let again = try DNSMessage(decoding: response.encode(for: query, over: .tcp))
            #expect(again.answers == message.answers)
            #expect(again.authorities == message.authorities)
        }
        #expect(accepted > 500)
    }

    @Test func noBindingTraps() {
        var generator = SeededGenerator(seed: 0xd17)
        let seed: [UInt8] =
            [0, 1] + DNSBytes.name("svc.example") + [0, 0, 0, 2, 0, 1, 0, 1, 0, 3, 2, 0x68, 0x32]
            + [0, 4, 0, 4, 192, 0, 2, 1, 0, 5, 0, 2, 1, 2]
        for _ in 0..<20_000 {
            guard let clean = ServiceBinding.sanitize(generator.mutate(seed, spice: spice)) else { continue }
            #expect(ServiceBinding.sanitize(clean) == clean)
        }
    }
}
