import NetPrimitives
import Testing
import WireFormat

@Suite struct SOCKSTests {
    private static let name = Array("example.com".utf8)

    private static func request(_ type: UInt8, _ address: [UInt8], command: UInt8 = 1, port: [UInt8] = [1, 187])
        -> [UInt8]
    {
        [5, command, 0, type] + address + port
    }

    private static func named(_ name: String, command: UInt8 = 1) -> [UInt8] {
        request(3, [UInt8(name.utf8.count)] + Array(name.utf8), command: command)
    }

    private func parsed(_ bytes: [UInt8]) -> SOCKSRequest? {
        guard case .request(let request) = SOCKSRequest.parse(bytes) else { return nil }
        return request
    }

    @Test func greetings() {
        #expect(SOCKSGreeting.parse([]) == .needMore(2))
        #expect(SOCKSGreeting.parse([5]) == .needMore(2))
        #expect(SOCKSGreeting.parse([5, 3, 0, 1]) == .needMore(5))
        guard case .greeting(let plain) = SOCKSGreeting.parse([5, 2, 0, 2, 5, 1]) else {
            Issue.record("a greeting")
            return
        }
        #expect(plain.offersNoAuthentication && plain.length == 4)
        guard case .greeting(let demanding) = SOCKSGreeting.parse([5, 1, 2]) else {
            Issue.record("a greeting")
            return
        }
        #expect(!demanding.offersNoAuthentication)
    }

    @Test func otherGreetings() {
        #expect(SOCKSGreeting.parse([4]) == .version4)
        #expect(SOCKSGreeting.parse([4, 1, 0, 80, 192, 0, 2, 1, 0]) == .version4)
        #expect(SOCKSGreeting.parse(Array("GET / HTTP/1.1\r\n".utf8)) == .notSOCKS)
        #expect(SOCKSGreeting.parse([5, 0]) == .malformed(WireError(offset: 1, problem: "no method is offered")))
        #expect(SOCKSGreeting.begins(with: 4) && SOCKSGreeting.begins(with: 5) && !SOCKSGreeting.begins(with: 6))
    }

    @Test func requestForAName() throws {
        let request = try #require(parsed(Self.named("Example.COM") + [22, 3, 1]))
        #expect(request.destination == .name(try DomainName("example.com")))
        #expect(request.command == .connect && request.port == 443 && request.length == 18)
    }

    @Test func requestForAnAddress() throws {
        let v4 = try #require(parsed(Self.request(1, [192, 0, 2, 7], port: [0, 80])))
        #expect(v4.destination == .address(IPAddress(v4: 0xc000_0207)) && v4.port == 80 && v4.length == 10)
        let bytes = [0x20, 0x01, 0x0d, 0xb8] + [UInt8](repeating: 0, count: 11) + [1]
        let v6 = try #require(parsed(Self.request(4, bytes)))
        #expect(v6.destination == .address(try #require(IPAddress("2001:db8::1"))) && v6.length == 22)
    }

    /// What is written in a name's place and is an address is judged as an address.
    @Test(arguments: ["192.0.2.7", "2001:db8::1"])
    func addressInANamesPlace(_ text: String) throws {
        #expect(parsed(Self.named(text))?.destination == .address(try #require(IPAddress(text))))
    }

    @Test(arguments: [
        "0x7f.1", "127.1", "017700000001", "a..b", ".", "under score", "a\0b", "[2001:db8::1]", "fe80::1%lo",
        "example.com:443", "user@example.com", "\u{e9}.example",
    ])
    func noName(_ text: String) {
        #expect(parsed(Self.named(text))?.destination == .malformedName)
    }

    @Test func otherCommands() {
        #expect(parsed(Self.named("example.com", command: 2))?.command == .bind)
        let associate = parsed(Self.request(1, [0, 0, 0, 0], command: 3, port: [0, 0]))
        #expect(associate?.command == .udpAssociate && associate?.port == 0)
        #expect(SOCKSRequest.parse([5, 9]) == .unsupported(.commandNotSupported))
        #expect(SOCKSRequest.parse([5, 1, 0, 2]) == .unsupported(.addressTypeNotSupported))
    }

    @Test func malformedRequests() {
        func problem(_ bytes: [UInt8]) -> Int? {
            guard case .malformed(let error) = SOCKSRequest.parse(bytes) else { return nil }
            return error.offset
        }
        #expect(problem([4]) == 0)
        #expect(problem([5, 1, 1]) == 2)
        #expect(problem([5, 1, 0, 3, 0]) == 4)
        #expect(problem(Self.request(1, [192, 0, 2, 7], port: [0, 0])) == 8)
    }

    @Test func lengthsThatAreAskedFor() {
        #expect(SOCKSRequest.parse([]) == .needMore(5))
        #expect(SOCKSRequest.parse([5, 1, 0, 1]) == .needMore(5))
        #expect(SOCKSRequest.parse([5, 1, 0, 1, 192]) == .needMore(10))
        #expect(SOCKSRequest.parse([5, 1, 0, 4, 0]) == .needMore(22))
        #expect(SOCKSRequest.parse([5, 1, 0, 3, 255, 1, 2]) == .needMore(262))
    }

    @Test func replies() {
        #expect(SOCKSReply.succeeded.bytes == [5, 0, 0, 1, 0, 0, 0, 0, 0, 0])
        #expect(SOCKSReply.notAllowed.bytes.prefix(2) == [5, 2])
        #expect(SOCKSReply.commandNotSupported.rawValue == 7 && SOCKSReply.addressTypeNotSupported.rawValue == 8)
    }

    /// Slightly broken messages: none may trap, and how they were divided changes nothing.
    @Test(arguments: 0..<8 as Range<UInt64>)
    func mutations(seed: UInt64) {
        var generator = SeededGenerator(seed: 500 + seed)
        let seeds = [
            Self.named("example.com"), Self.named("192.0.2.7"), Self.request(1, [192, 0, 2, 7]),
            Self.request(4, [UInt8](repeating: 1, count: 16)), Self.request(1, [0, 0, 0, 0], command: 3),
        ]
        let greetings: [[UInt8]] = [[5, 1, 0], [5, 3, 0, 1, 2], [4, 1, 0, 80, 0, 0, 0, 1, 0]]
        var requests = 0
        for _ in 0..<4_000 {
            let bytes = generator.mutate(seeds.randomElement(using: &generator)!, spice: [[0], [255], [5, 1, 0]])
            let expected = SOCKSRequest.parse(bytes)
            for prefix in generator.prefixes(of: bytes) {
                let outcome = SOCKSRequest.parse(prefix)
                if case .needMore(let count) = outcome {
                    #expect(count > prefix.count)
                } else {
                    #expect(outcome == expected)
                }
            }
            if case .request(let request) = expected {
                requests += 1
                #expect(request.length <= bytes.count)
            }
            let greeting = generator.mutate(greetings.randomElement(using: &generator)!)
            let whole = SOCKSGreeting.parse(greeting)
            for prefix in generator.prefixes(of: greeting) {
                let outcome = SOCKSGreeting.parse(prefix)
                if case .needMore(let count) = outcome {
                    #expect(count > prefix.count)
                } else {
                    #expect(outcome == whole)
                }
            }
        }
        #expect(requests > 100)
    }
}
