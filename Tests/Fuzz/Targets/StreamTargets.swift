import EgressCore
import NetPrimitives
import WireFormat

// What is found at the start of a connection: it must depend on the bytes alone, not on how they were divided.
extension FuzzTarget {
    /// A TLS client's first message.
    static let clientHello = FuzzTarget(name: "client-hello") { bytes in
        var whole = ClientHelloParser()
        let expected = whole.parse(bytes)
        if case .hello(let hello) = expected { checkHello(hello, bytes) }
        var divided = ClientHelloParser()
        for prefix in Pieces.prefixes(of: bytes) {
            let outcome = divided.parse(prefix)
            if case .needMore(let count) = outcome {
                require(count > prefix.count, "\(count) bytes are wanted, which are there")
                if prefix.count < bytes.count { continue }
            }
            require(outcome == expected, "\(prefix.count) bytes: \(outcome); in one go: \(expected)")
            break
        }
    }

    /// A server's first bytes, and what a client says when it is asked for another hello.
    static let helloRetry = FuzzTarget(name: "hello-retry") { bytes in
        var whole = HelloRetryDetector()
        let expected = bytes.withUnsafeBytes { whole.look(at: $0) }
        var divided = HelloRetryDetector()
        var found = HelloRetryDetector.Outcome.needMore
        for byte in bytes where found == .needMore { found = withUnsafeBytes(of: byte) { divided.look(at: $0) } }
        require(found == expected, "byte by byte: \(found); in one go: \(expected)")
        var rest = bytes[...]
        while case .passes(let count) = SecondHello.examine(Array(rest)) {
            require((1...rest.count).contains(count), "\(count) of \(rest.count) bytes pass")
            require(rest.first != 22, "a handshake message passes")
            rest = rest.dropFirst(count)
        }
        switch SecondHello.examine(Array(rest)) {
        case .needMore(let count): require(count > rest.count, "\(count) bytes are wanted, which are there")
        case .hello(let hello): checkHello(hello, Array(rest))
        case .malformed, .passes: break
        }
    }

    private static func checkHello(_ hello: ClientHello, _ bytes: [UInt8]) {
        require(hello.length <= bytes.count, "longer than the stream")
        var parser = ClientHelloParser()
        let alone = parser.parse(Array(bytes.prefix(hello.length)))
        require(alone == .hello(hello), "what follows the message matters: \(alone)")
        if case .name(let name) = hello.serverName {
            require((try? DomainName(ascii: name.bytes)) == name, "the name is not canonical")
        }
    }

    /// What a connection turns out to be.
    static let firstBytes = FuzzTarget(name: "first-bytes") { bytes in
        var whole = FirstBytes()
        let expected = whole.examine(bytes)
        var divided = FirstBytes()
        for prefix in Pieces.prefixes(of: bytes) {
            let sighting = divided.examine(prefix)
            if case .needMore(let count) = sighting {
                require(count > prefix.count, "\(count) bytes are wanted, which are there")
                if prefix.count < bytes.count { continue }
            }
            require(sighting == expected, "\(prefix.count) bytes: \(sighting); in one go: \(expected)")
            break
        }
    }

    /// A SOCKS greeting, and a request.
    static let socks = FuzzTarget(name: "socks") { bytes in
        let greeting = SOCKSGreeting.parse(bytes)
        let request = SOCKSRequest.parse(bytes)
        if case .greeting(let greeting) = greeting { require(greeting.length <= bytes.count, "longer than the stream") }
        if case .request(let request) = request {
            require(request.length <= bytes.count, "longer than the stream")
            require(request.port > 0 || request.command != .connect, "port 0")
        }
        for prefix in Pieces.prefixes(of: bytes) {
            switch SOCKSGreeting.parse(prefix) {
            case .needMore(let count): require(count > prefix.count, "\(count) bytes are wanted, which are there")
            case let outcome: require(outcome == greeting, "\(prefix.count) bytes: \(outcome); in one go: \(greeting)")
            }
            switch SOCKSRequest.parse(prefix) {
            case .needMore(let count): require(count > prefix.count, "\(count) bytes are wanted, which are there")
            case let outcome: require(outcome == request, "\(prefix.count) bytes: \(outcome); in one go: \(request)")
            }
        }
    }
}
