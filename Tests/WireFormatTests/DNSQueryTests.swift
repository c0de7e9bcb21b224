import NetPrimitives
import Testing
import WireFormat

@Suite struct DNSQueryTests {
    @Test func readsAPlainQuery() throws {
        let query = try DNSQuery(parsing: DNSBytes().question("Api.Example", 28).bytes)
        #expect(query.id == 0x1234)
        #expect(query.name == .success(try DomainName("api.example")))
        #expect(query.wireName.description == "Api.Example")
        #expect(query.type == .aaaa)
        #expect(query.recursionDesired)
        #expect(!query.checkingDisabled)
        #expect(query.edns == nil)
    }

    @Test func readsWhatDigSends() throws {
        // dig +dnssec example.com: AD set, a cookie, 1,232 bytes
        let cookie: [UInt8] = [0, 10, 0, 8, 0xa1, 2, 3, 4, 5, 6, 7, 8]
        let bytes = DNSBytes(flags: 0x0120, additionals: 1).question("example.com")
            .opt(dnssec: true, options: cookie).bytes
        let query = try DNSQuery(parsing: bytes)
        #expect(query.edns?.udpSize == 1_232)
        #expect(query.edns?.version == 0)
        #expect(query.edns?.isDNSSECOK == true)
        #expect(query.wantsAuthenticData)
    }

    @Test func neverAnswersAResponse() {
        #expect(reply(to: DNSBytes(flags: 0x8180).question("a.example").bytes) == .some(nil))
        #expect(reply(to: DNSBytes(flags: 0xf800).question("a.example").bytes) == .some(nil))
    }

    @Test(arguments: 0..<12) func neverAnswersLessThanAHeader(count: Int) {
        #expect(reply(to: Array(DNSBytes().bytes.prefix(count))) == .some(nil))
    }

    @Test(arguments: [1, 2, 4, 5, 6, 15] as [UInt16]) func implementsNoOtherOpcode(opcode: UInt16) {
        #expect(code(of: DNSBytes(flags: opcode << 11).question("a.example").bytes) == 4)
    }

    @Test(arguments: [0, 2, 3, 4, 254, 255] as [UInt16]) func refusesOtherClasses(recordClass: UInt16) {
        #expect(code(of: DNSBytes().question("a.example", 1, recordClass: recordClass).bytes) == 5)
    }

    @Test func wantsExactlyOneQuestion() {
        #expect(code(of: DNSBytes(questions: 0).bytes) == 1)
        #expect(code(of: DNSBytes(questions: 2).question("a.example").question("b.example").bytes) == 1)
        #expect(code(of: DNSBytes(questions: 2).question("a.example").bytes) == 1)
        #expect(code(of: DNSBytes(questions: 0xffff).question("a.example").bytes) == 1)
        #expect(code(of: DNSBytes(questions: 1).bytes) == 1)
    }

    @Test func wantsNothingBesideTheQuestion() {
        let address: [UInt8] = [192, 0, 2, 1]
        let pointer = DNSBytes.questionPointer
        #expect(code(of: DNSBytes().question("a.example").raw([0]).bytes) == 1)
        #expect(code(of: DNSBytes(answers: 1).question("a.example").record(pointer, 1, address).bytes) == 1)
        #expect(code(of: DNSBytes(authorities: 1).question("a.example").record(pointer, 1, address).bytes) == 1)
        #expect(code(of: DNSBytes(additionals: 1).question("a.example").record(pointer, 1, address).bytes) == 1)
        #expect(code(of: DNSBytes(additionals: 1).question("a.example").record([0], 250, address).bytes) == 1)
        #expect(code(of: DNSBytes(additionals: 2).question("a.example").opt().opt().bytes) == 1)
        #expect(code(of: DNSBytes(additionals: 1).question("a.example").bytes) == 1)
        #expect(code(of: DNSBytes(additionals: 0).question("a.example").opt().bytes) == 1)
    }

    @Test func checksTheOptionsForm() {
        func query(_ options: [UInt8], length: Int? = nil) -> [UInt8] {
            DNSBytes(additionals: 1).question("a.example")
                .record([0], 41, options, ttl: 0, recordClass: 1_232, length: length).bytes
        }
        #expect(code(of: query([0, 10, 0])) == 1)
        #expect(code(of: query([0, 10, 0, 9, 1, 2])) == 1)
        #expect(code(of: query([0, 10, 0, 0], length: 3)) == 1)
        #expect(code(of: query([0, 10, 0, 0], length: 40)) == 1)
        #expect(code(of: query([0, 10, 0, 0])) == nil)
        // The owner must be the root.
        let owned = DNSBytes(additionals: 1).question("a.example").record(DNSBytes.questionPointer, 41, [])
        #expect(code(of: owned.bytes) == 1)
    }

    @Test func takesNoCompressionInAQuestion() {
        #expect(code(of: DNSBytes().question(wire: [0xc0, 12]).bytes) == 1)
        #expect(code(of: DNSBytes().question(wire: [1, 0x61, 0xc0, 12]).bytes) == 1)
        #expect(code(of: DNSBytes().question(wire: [0xc0, 0]).bytes) == 1)
        #expect(code(of: DNSBytes().question(wire: [0x41, 0]).bytes) == 1)
        #expect(code(of: DNSBytes().question(wire: [0x80, 0]).bytes) == 1)
    }

    @Test func endsAtEveryPrefix() {
        let whole = DNSBytes(additionals: 1).question("a.example").opt(options: [0, 10, 0, 1, 7]).bytes
        #expect(code(of: whole) == nil)
        for count in 12..<whole.count { #expect(code(of: Array(whole.prefix(count))) == 1) }
    }

    @Test func boundsNames() throws {
        let label: [UInt8] = [63] + Array(repeating: 0x61, count: 63)
        let longest = label + label + label + [61] + Array(repeating: 0x61, count: 61) + [0]
        #expect(longest.count == 255)
        let query = try DNSQuery(parsing: DNSBytes().question(wire: longest).bytes)
        #expect(try query.name.get().bytes.count == 253)
        let tooLong = label + label + label + [62] + Array(repeating: 0x61, count: 62) + [0]
        #expect(code(of: DNSBytes().question(wire: tooLong).bytes) == 1)
    }

    @Test(
        arguments: [
            ([3, 0x61, 0x2e, 0x62, 0], .invalidByte(0x2e)),  // a dot inside a label
            ([3, 0x61, 0x00, 0x62, 0], .invalidByte(0)),
            ([2, 0xc3, 0xa9, 0], .invalidByte(0xc3)),
            ([3, 0x61, 0x20, 0x62, 0], .invalidByte(0x20)),
            ([3, 0x61, 0x2a, 0x62, 0], .invalidByte(0x2a)),
            ([1, 0x61, 1, 0x37, 0], .numericLastLabel),
            ([0], .empty),
        ] as [([UInt8], DomainName.ParseError)]
    )
    func readsNamesThatAreNoHostNames(wire: [UInt8], reason: DomainName.ParseError) throws {
        let query = try DNSQuery(parsing: DNSBytes().question(wire: wire).bytes)
        #expect(query.name == .failure(reason))
        #expect(query.wireName.bytes == wire)
    }

    @Test func printsAnyName() throws {
        let query = try DNSQuery(parsing: DNSBytes().question(wire: [4, 0x2e, 0x00, 0x5c, 0xff, 1, 0x41, 0]).bytes)
        #expect(query.wireName.description == #"\.\000\\\255.A"#)
        #expect(DNSWireName.root.description == ".")
    }

    @Test func answersMalformedQueriesWithTheirIdentifier() throws {
        let bytes = try #require(reply(to: DNSBytes(id: 0xbeef, questions: 0).bytes) ?? nil)
        #expect(bytes == [0xbe, 0xef, 0x81, 0x81, 0, 0, 0, 0, 0, 0, 0, 0])
    }
}

extension DNSQueryTests {
    /// The reply of the refusal; `nil` when there is no refusal.
    private func reply(to bytes: [UInt8]) -> [UInt8]?? {
        do {
            _ = try DNSQuery(parsing: bytes)
            return nil
        } catch {
            return .some(error.reply)
        }
    }

    /// The response code of the refusal; `nil` when there is no refusal or no reply.
    private func code(of bytes: [UInt8]) -> UInt8? {
        (reply(to: bytes) ?? nil).map { $0[3] & 0xf }
    }
}
