import NetPrimitives
import Testing
import WireFormat

/// Parses `bytes` in one go.
private func parse(_ bytes: [UInt8]) -> ClientHelloParser.Outcome {
    var parser = ClientHelloParser()
    return parser.parse(bytes)
}

private func hello(_ bytes: [UInt8]) throws -> ClientHello {
    guard case .hello(let hello) = parse(bytes) else {
        Issue.record("no hello: \(parse(bytes))")
        throw WireError(offset: 0, problem: "no hello")
    }
    return hello
}

private func isMalformed(_ outcome: ClientHelloParser.Outcome) -> Bool {
    if case .malformed = outcome { true } else { false }
}

@Suite struct ClientHelloParserTests {
    @Test func readsNameAndProtocols() throws {
        var builder = HelloBuilder(serverName: "Files.Example.COM")
        builder.add(16, HelloBuilder.protocols(["h2", "http/1.1"]))
        let bytes = builder.records()
        let hello = try hello(bytes)
        #expect(hello.serverName == .name(try DomainName("files.example.com")))
        #expect(hello.alpn == [Array("h2".utf8), Array("http/1.1".utf8)])
        #expect(!hello.hasEncryptedClientHello)
        #expect(hello.length == bytes.count)
    }

    @Test func leavesWhatFollowsTheHello() throws {
        let bytes = HelloBuilder().records()
        // Early data and the compatibility change_cipher_spec may follow at once (RFC 8446 D.4).
        #expect(try hello(bytes + [20, 3, 3, 0, 1, 1, 23, 3, 3]).length == bytes.count)
    }

    @Test func absentName() throws {
        #expect(try hello(HelloBuilder(serverName: nil).records()).serverName == .absent)
    }

    @Test func helloWithoutExtensions() throws {
        var builder = HelloBuilder()
        builder.extensions = nil
        builder.legacyVersion = 0x0300
        builder.sessionID = []
        #expect(try hello(builder.records()).serverName == .absent)
    }

    @Test(arguments: [UInt16(0xfe0d), 0xfe08, 0xffce])
    func encryptedClientHelloIsFlagged(type: UInt16) throws {
        var builder = HelloBuilder()
        builder.add(type, [0, 0, 1, 0, 1, 9, 0, 0, 0, 0])
        let hello = try hello(builder.records())
        #expect(hello.hasEncryptedClientHello)
        #expect(hello.serverName == .name(try DomainName("example.com")))
    }
}

// MARK: - Splits

@Suite struct ClientHelloSplitTests {
    /// Every way to cut the stream in two, over records of every kind of size.
    @Test(arguments: [1, 2, 3, 4, 5, 7, 64, 16384])
    func everySplitOverRecords(size: Int) throws {
        let bytes = HelloBuilder().records(of: size)
        let whole = parse(bytes)
        #expect(try hello(bytes).length == bytes.count)
        for cut in 0..<bytes.count {
            var parser = ClientHelloParser()
            guard case .needMore(let count) = parser.parse(Array(bytes.prefix(cut))) else {
                Issue.record("decided after \(cut) of \(bytes.count) bytes")
                continue
            }
            #expect(count > cut && count <= bytes.count)
            #expect(parser.parse(bytes) == whole)
        }
    }

    @Test func byteByByte() throws {
        let bytes = HelloBuilder().records(of: 9)
        var parser = ClientHelloParser()
        for end in 1..<bytes.count {
            guard case .needMore = parser.parse(Array(bytes.prefix(end))) else {
                Issue.record("decided after \(end) bytes")
                return
            }
        }
        #expect(parser.parse(bytes) == parse(bytes))
    }

    /// Waiting for as much as is asked for comes to the end, and soon.
    @Test(arguments: [1, 100, 16384])
    func followingTheHints(size: Int) throws {
        var builder = HelloBuilder()
        builder.add(51, [UInt8](repeating: 1, count: 1216))
        let bytes = builder.records(of: size)
        var parser = ClientHelloParser()
        var count = 1
        var calls = 0
        while case .needMore(let wanted) = parser.parse(Array(bytes.prefix(count))) {
            #expect(wanted > count && wanted <= bytes.count)
            count = wanted
            calls += 1
        }
        #expect(count == bytes.count)
        #expect(calls < 100)
    }

    @Test func postQuantumSized() throws {
        var builder = HelloBuilder()
        builder.add(
            51,
            HelloBuilder.vector16([0x11, 0xec] + HelloBuilder.vector16([UInt8](repeating: 3, count: 1216)))
        )
        builder.add(0xfe0d, [UInt8](repeating: 0, count: 282))
        builder.add(21, [UInt8](repeating: 0, count: 180))
        let bytes = builder.records()
        #expect(bytes.count > 1750)
        #expect(try hello(bytes).serverName == .name(try DomainName("example.com")))
        // A segment boundary where an Ethernet frame has it.
        var parser = ClientHelloParser()
        #expect(parser.parse(Array(bytes.prefix(1448))) == .needMore(bytes.count))
        #expect(parser.parse(bytes) == parse(bytes))
    }

    @Test func moreThanOneRecordHolds() throws {
        var builder = HelloBuilder()
        builder.add(41, [UInt8](repeating: 2, count: 40_000))
        let bytes = builder.records()
        #expect(bytes.count > 2 * 16384)
        #expect(try hello(bytes).length == bytes.count)
        #expect(try hello(builder.records(of: 100)).serverName == .name(try DomainName("example.com")))
    }

    @Test func tooLong() {
        var builder = HelloBuilder()
        builder.add(41, [UInt8](repeating: 2, count: 65_000))
        builder.add(42, [])
        builder.trailing = [UInt8](repeating: 0, count: 1_000)
        // Known from the length, before the bytes come.
        #expect(isMalformed(parse(Array(builder.records().prefix(9)))))
        #expect(isMalformed(parse(builder.records())))
        #expect(isMalformed(parse([22, 3, 1, 0, 4, 1, 0xff, 0xff, 0xff])))
    }
}

// MARK: - Names

@Suite struct ClientHelloServerNameTests {
    private func serverName(_ data: [UInt8]) throws -> ClientHello.ServerName {
        var builder = HelloBuilder(serverName: nil)
        builder.add(0, data)
        return try hello(builder.records()).serverName
    }

    @Test(arguments: [
        "", ".", "192.0.2.1", "2001:db8::1", "[2001:db8::1]", "127.1", "0x7f.1", "example.com.", "exa mple.com",
        "example..com", ".example.com", "example.com:443", "*.example.com", "exämple.com", "a\0.example.com",
        "example.com\0", String(repeating: "a", count: 64) + ".com",
        Array(repeating: "abcdefg", count: 40).joined(separator: "."),
    ])
    func noPlainHostName(name: String) throws {
        #expect(try serverName(HelloBuilder.serverNames([(0, Array(name.utf8))])) == .malformed)
    }

    @Test func otherNumbersOfNames() throws {
        let first = Array("example.com".utf8)
        #expect(try serverName([]) == .malformed)
        #expect(try serverName(HelloBuilder.serverNames([])) == .malformed)
        #expect(try serverName(HelloBuilder.serverNames([(0, first), (0, Array("evil.test".utf8))])) == .malformed)
        #expect(try serverName(HelloBuilder.serverNames([(0, first), (0, first)])) == .malformed)
        #expect(try serverName(HelloBuilder.serverNames([(0, first), (1, first)])) == .malformed)
        #expect(try serverName(HelloBuilder.serverNames([(1, first)])) == .malformed)
    }

    @Test func underscoreAndSingleLabel() throws {
        #expect(
            try hello(HelloBuilder(serverName: "_x.example.com").records()).serverName
                == .name(try DomainName("_x.example.com"))
        )
        #expect(
            try hello(HelloBuilder(serverName: "localhost").records()).serverName == .name(try DomainName("localhost"))
        )
    }

    @Test func manyExtensions() throws {
        var builder = HelloBuilder(serverName: "localhost")
        for type: UInt16 in 1_000..<1_060 { builder.add(type, []) }
        #expect(try hello(builder.records()).serverName == .name(try DomainName("localhost")))
    }

    @Test func twoExtensions() {
        var builder = HelloBuilder()
        builder.add(0, HelloBuilder.serverNames([(0, Array("evil.test".utf8))]))
        #expect(isMalformed(parse(builder.records())))
    }
}

// MARK: - Broken messages

@Suite struct MalformedClientHelloTests {
    /// Each way to break one part of the message.
    private static let broken: [(String, @Sendable (inout HelloBuilder) -> Void)] = [
        ("version 2", { $0.legacyVersion = 0x0200 }),
        ("version 4", { $0.legacyVersion = 0x0403 }),
        ("session id of 33 bytes", { $0.sessionID = [UInt8](repeating: 0, count: 33) }),
        ("no cipher suite", { $0.cipherSuites = [] }),
        ("half a cipher suite", { $0.cipherSuites = [0x13, 0x01, 0x13] }),
        ("no compression method", { $0.compressionMethods = [] }),
        ("trailing byte", { $0.trailing = [0] }),
        ("an extension twice", { $0.add(10, [0, 2, 0, 29]) }),
        ("the first of many extensions again", { addMany(to: &$0, andAgain: 1_000) }),
        ("the last of many extensions again", { addMany(to: &$0, andAgain: 1_059) }),
        (
            "bytes where extensions would be",
            {
                $0.extensions = nil; $0.trailing = [0]
            }
        ),
        ("name list longer than its extension", { $0.extensions = [(0, [0, 9, 0, 0, 1, 0x61])] }),
        ("name list shorter than its extension", { $0.extensions = [(0, [0, 4, 0, 0, 1, 0x61, 0])] }),
        ("name longer than its list", { $0.extensions = [(0, [0, 4, 0, 0, 2, 0x61])] }),
        ("half a name length", { $0.extensions = [(0, [0, 2, 0, 0])] }),
        ("one byte of a list length", { $0.extensions = [(0, [0])] }),
        ("empty protocol list", { $0.add(16, [0, 0]) }),
        ("no protocol list", { $0.add(16, []) }),
        ("empty protocol name", { $0.add(16, [0, 1, 0]) }),
        ("protocol longer than its list", { $0.add(16, [0, 2, 2, 0x68]) }),
        ("bytes after the protocol list", { $0.add(16, [0, 2, 1, 0x68, 0]) }),
        ("another handshake message", { $0.handshakeType = 2 }),
    ]

    private static func addMany(to builder: inout HelloBuilder, andAgain type: UInt16) {
        for type in (1_000..<1_060) + [type] { builder.add(type, []) }
    }

    @Test(arguments: broken.indices)
    func oneBrokenPart(index: Int) {
        var builder = HelloBuilder()
        Self.broken[index].1(&builder)
        for size in [1, 50, 16384] {
            #expect(isMalformed(parse(builder.records(of: size))), "\(Self.broken[index].0), records of \(size)")
        }
    }

    /// Each length in the message, one too small and one too large.
    @Test func lyingLengths() throws {
        var builder = HelloBuilder(serverName: nil)
        builder.extensions = []
        builder.add(0, HelloBuilder.serverNames([(0, Array("example.com".utf8))]))
        let message = builder.message
        let sessionID = 4 + 2 + 32
        let suites = sessionID + 1 + 32
        let compression = suites + 2 + 4
        let extensions = compression + 2
        let lowBytes = [
            3, sessionID, suites + 1, compression, extensions + 1, extensions + 5, extensions + 7, extensions + 10,
        ]
        for place in lowBytes {
            for change in [-1, 1, 100] {
                var lie = message
                lie[place] = UInt8(truncatingIfNeeded: Int(lie[place]) + change)
                let outcome = parse(HelloBuilder.record(lie))
                if place == 3 && change > 0 {
                    #expect(outcome == .needMore(5 + message.count + 5 + change))  // it may go on in another record
                    #expect(isMalformed(parse(HelloBuilder.record(lie + [UInt8](repeating: 0, count: change)))))
                } else {
                    #expect(isMalformed(outcome), "byte \(place) changed by \(change)")
                }
            }
        }
    }

    @Test func brokenRecords() {
        let message = HelloBuilder().message
        let half = Array(message.prefix(50))
        let rest = Array(message.dropFirst(50))
        #expect(isMalformed(parse(HelloBuilder.record(message + [0]))))
        #expect(isMalformed(parse(HelloBuilder.record(message + message))))
        #expect(isMalformed(parse(HelloBuilder.record(half) + HelloBuilder.record(rest + [14, 0, 0, 0]))))
        #expect(isMalformed(parse(HelloBuilder.record([]) + HelloBuilder.record(message))))
        #expect(isMalformed(parse(HelloBuilder.record(half) + HelloBuilder.record([]) + HelloBuilder.record(rest))))
        for other in [UInt8(20), 21, 23, 24, 0] {
            #expect(isMalformed(parse(HelloBuilder.record(half) + HelloBuilder.record([1], type: other))))
        }
        #expect(isMalformed(parse(HelloBuilder.record(message, version: 0x0200))))
        #expect(isMalformed(parse(HelloBuilder.record(message, version: 0x0305))))
        #expect(isMalformed(parse(HelloBuilder.record(half) + HelloBuilder.record(rest, version: 0x0500))))
        #expect(isMalformed(parse([22, 3, 1, 0x40, 1])))
    }

    /// What can no longer become a ClientHello is known at once.
    @Test(
        arguments: [[22, 2], [22, 3, 9], [22, 3, 1, 0, 0], [22, 3, 1, 0xff, 0xff], [22, 3, 1, 0, 9, 2]] as [[UInt8]]
    )
    func knownEarly(bytes: [UInt8]) {
        #expect(isMalformed(parse(bytes)))
        #expect(!isMalformed(parse(bytes.dropLast())))
    }

    @Test func otherProtocols() {
        for text in ["GET / HTTP/1.1\r\n\r\n", "SSH-2.0-x\r\n", "\r\n", "\0", "\u{17}\u{3}\u{3}"] {
            #expect(parse(Array(text.utf8)) == .notTLS)
        }
        #expect(parse([]) == .needMore(1))
        #expect(parse([0xff, 0xfd]) == .needMore(3))
        #expect(parse([0xff, 0xfd, 0x18]) == .notTLS)
    }

    /// Go's crypto/tls skips warnings there, in records of whatever version below 16.0.
    @Test(
        arguments: [
            [21, 3, 1, 0, 2, 1, 90], [21, 3, 3, 0, 2, 1, 0], [21, 0, 0, 0, 2, 1, 90], [21, 15, 255, 0, 2, 2, 40],
            [20, 3, 3, 0, 1, 1],
        ] as [[UInt8]]
    )
    func recordInFront(record: [UInt8]) {
        #expect(isMalformed(parse(record + HelloBuilder.record(HelloBuilder().message))))
        for count in 1...5 { #expect(parse(Array(record.prefix(count))) == .needMore(6)) }
    }

    /// The last of them as MongoDB's clients may begin: lengths in the order of little-endian machines.
    @Test(
        arguments: [[21, 16], [21, 3, 1, 1], [21, 3, 1, 0, 1], [20, 3, 3, 0, 1, 2], [21, 1, 0, 0, 2, 0]] as [[UInt8]]
    )
    func otherProtocolsThatBeginLikeRecords(bytes: [UInt8]) {
        #expect(parse(bytes) == .notTLS)
        #expect(parse(bytes.dropLast()) == .needMore(6))
    }

    /// RFC 6101 E.1, as OpenSSL 0.9.8 sent it.
    @Test func versionTwoHello() {
        #expect(isMalformed(parse([0x80, 0x2e, 1, 3, 1, 0, 0x15, 0, 0, 0, 0x10])))
        #expect(isMalformed(parse([0x80, 0x2e, 1, 0, 2])))
        #expect(parse([0x80, 0x2e]) == .needMore(3))
    }
}
