import NetPrimitives
import Testing
import WireFormat

@Suite struct DNSMessageTests {
    let pointer = DNSBytes.questionPointer

    @Test func decodesAnAnswerWithAliases() throws {
        // www.example CNAME web.example (compressed against the question), web.example A
        let message = try DNSMessage(
            decoding: DNSBytes(flags: 0x81a0, answers: 2, additionals: 1).question("wWw.Example")
                .record(pointer, 5, [3] + Array("WEB".utf8) + [0xc0, 16], ttl: 60)
                .record([3] + Array("web".utf8) + [0xc0, 16], 1, [198, 51, 100, 7])
                .opt().bytes
        )
        #expect(message.isResponse && message.isAuthenticData && !message.isTruncated)
        #expect(message.code == .noError)
        #expect(message.questions.map(\.name.description) == ["wWw.Example"])
        #expect(message.answers.map(\.owner.description) == ["www.example", "web.example"])
        #expect(message.answers[0].canonicalName?.description == "web.example")
        #expect(message.answers[0].ttl == 60)
        #expect(message.answers[1].address == IPAddress("198.51.100.7"))
    }

    @Test func writesCompressedNamesInDataOut() throws {
        let full = DNSBytes.name("x.mail.example")
        let short: [UInt8] = [1, 0x78, 0xc0, 12]
        let cases: [(UInt16, [UInt8], [UInt8])] = [
            (2, short, full),
            (5, short, full),
            (12, short, full),
            (39, short, full),
            (15, [0, 10] + short, [0, 10] + full),
            (33, [0, 1, 0, 2, 0, 53] + short, [0, 1, 0, 2, 0, 53] + full),
            (35, [0, 1, 0, 2, 1, 0x55, 0, 2, 0x61, 0x62] + short, [0, 1, 0, 2, 1, 0x55, 0, 2, 0x61, 0x62] + full),
            (6, short + pointer + soaTail, full + DNSBytes.name("mail.example") + soaTail),
        ]
        for (type, data, expected) in cases {
            let message = try DNSMessage(
                decoding: DNSBytes(flags: 0x8180, answers: 1).question("mail.example", type)
                    .record(pointer, type, data).bytes
            )
            #expect(message.answers.first?.data == expected, "type \(type)")
        }
    }

    @Test func readsNegativeTTLs() throws {
        let soa = DNSBytes.name("ns.example") + DNSBytes.name("host.example") + soaTail
        for (ttl, expected) in [(3_600, 900), (30, 30)] as [(UInt32, UInt32)] {
            let message = try DNSMessage(
                decoding: DNSBytes(flags: 0x8183, authorities: 1).question("no.example")
                    .record(DNSBytes.name("example"), 6, soa, ttl: ttl).bytes
            )
            #expect(message.code == .nameError)
            #expect(message.authorities.first?.negativeTTL == expected)
        }
    }

    @Test func takesHugeTTLsAsZero() throws {
        let message = try DNSMessage(
            decoding: DNSBytes(flags: 0x8180, answers: 1).question("a.example")
                .record(pointer, 1, [192, 0, 2, 1], ttl: 0x8000_0001).bytes
        )
        #expect(message.answers.first?.ttl == 0)
    }

    @Test func readsExtendedCodes() throws {
        let message = try DNSMessage(
            decoding: DNSBytes(flags: 0x8180, additionals: 1).question("a.example")
                .record([0], 41, [], ttl: 0x0100_0000, recordClass: 1_232).bytes
        )
        #expect(message.code == .badVersion)
    }

    @Test(
        arguments: [
            [0xc0, 27],  // itself
            [0xc0, 28],  // its own second byte
            [0xc0, 0xff],  // forward
            [0xff, 0xff],  // outside the message
            [0xc0, 11],  // into the header
            [0xc0, 0],
            [1, 0x61, 0xc0, 27],  // a loop over a label
            [0x80, 12],
            [0x40, 12],
        ] as [[UInt8]]
    )
    func refusesPointersThatDoNotLeadBack(owner: [UInt8]) {
        #expect(throws: WireError.self) {
            try DNSMessage(
                decoding: DNSBytes(flags: 0x8180, answers: 1).question("a.example")
                    .record(owner, 1, [192, 0, 2, 1]).bytes
            )
        }
    }

    /// Found by comparison: dnspython goes on reading behind the label, we did behind the pointer.
    @Test func refusesLabelsThatRunIntoTheNameThatPointsToThem() {
        let message = DNSBytes(flags: 0x8180, answers: 1).question("a.example")
        // The pointer leads to the last byte of the question's class, 1: a label that is the pointer's first byte. Its second
        // byte, 26, is the length of another label, which ends with the record's data but for the zero there.
        let owner = [0xc0, UInt8(message.bytes.count - 1)]
        let bytes = message.record(owner, 16, Array(repeating: 0x61, count: 16) + [0]).bytes
        #expect(throws: WireError.self) { try DNSMessage(decoding: bytes) }
    }

    @Test func endsChainsOfPointers() {
        // Every owner points to the one before: strictly backward, but longer than any name needs.
        var message = DNSBytes(flags: 0x8180, answers: 200).question("a.example")
        var previous = 12
        for _ in 0..<200 {
            let here = message.bytes.count
            message = message.record([0xc0 | UInt8(previous >> 8), UInt8(previous & 0xff)], 1, [192, 0, 2, 1])
            previous = here
        }
        #expect(throws: WireError.self) { try DNSMessage(decoding: message.bytes) }
    }

    @Test func boundsNamesThatGrowOverPointers() {
        var message = DNSBytes(flags: 0x8180, answers: 10).question("a.example")
        var previous = 12
        for _ in 0..<10 {
            let here = message.bytes.count
            let label = [63] + Array(repeating: UInt8(0x61), count: 63)
            message = message.record(label + [0xc0 | UInt8(previous >> 8), UInt8(previous & 0xff)], 1, [192, 0, 2, 1])
            previous = here
        }
        #expect(throws: WireError.self) { try DNSMessage(decoding: message.bytes) }
    }

    @Test func believesNoCounts() {
        let record = DNSBytes(flags: 0x8180, answers: 1).question("a.example").record(pointer, 1, [192, 0, 2, 1]).bytes
        #expect(throws: Never.self) { try DNSMessage(decoding: record) }
        for offset in [4, 6, 8, 10] {
            for value in [2, 0x100, 0xffff] as [UInt16] {
                var lying = record
                lying[offset] = UInt8(value >> 8)
                lying[offset + 1] = UInt8(truncatingIfNeeded: value)
                #expect(throws: WireError.self) { try DNSMessage(decoding: lying) }
            }
        }
        for count in 0..<record.count {
            #expect(throws: WireError.self) { try DNSMessage(decoding: Array(record.prefix(count))) }
        }
        #expect(throws: WireError.self) { try DNSMessage(decoding: record + [0]) }
    }

    @Test(
        arguments: [
            (1, [192, 0, 2]), (1, [192, 0, 2, 1, 1]), (1, []), (28, [192, 0, 2, 1]), (5, []), (5, [1, 0x61]),
            (5, [1, 0x61, 0, 0]), (15, [0]), (15, [0, 1, 0, 9]), (33, [0, 0, 0, 0, 0]), (6, [0, 0, 1, 2]),
            (35, [0, 0, 0, 0, 9, 1]),
        ] as [(UInt16, [UInt8])]
    )
    func checksData(type: UInt16, data: [UInt8]) {
        let bytes = DNSBytes(flags: 0x8180, answers: 1).question("a.example", type).record(pointer, type, data)
        #expect(throws: WireError.self) { try DNSMessage(decoding: bytes.bytes) }
    }

    @Test func keepsNamesInDataInsideIt() {
        // The alias's target runs on into the next record.
        let bytes = DNSBytes(flags: 0x8180, answers: 2).question("a.example")
            .record(pointer, 5, [2, 0x61], length: 2)
            .record(pointer, 1, [192, 0, 2, 1])
        #expect(throws: WireError.self) { try DNSMessage(decoding: bytes.bytes) }
    }

    /// Serial, refresh, retry, expire and a minimum of 900.
    private var soaTail: [UInt8] { [0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 3, 132] }
}
