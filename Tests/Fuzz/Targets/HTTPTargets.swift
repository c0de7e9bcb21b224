import EgressCore
import NetPrimitives
import WireFormat

extension FuzzTarget {
    /// A request's head, and the head that is sent in its place.
    static let httpRequest = FuzzTarget(name: "http-request") { bytes in
        var whole = HTTPRequestHeadParser()
        let expected = whole.parse(bytes)
        var divided = HTTPRequestHeadParser()
        for prefix in Pieces.prefixes(of: bytes) {
            let outcome = divided.parse(prefix)
            if case .needMore(let count) = outcome {
                require(count > prefix.count, "\(count) bytes are wanted, which are there")
                if prefix.count < bytes.count { continue }
            }
            require(outcome == expected, "\(prefix.count) bytes: \(outcome); in one go: \(expected)")
            break
        }
        if case .head(let head) = expected {
            require(head.length <= bytes.count, "longer than the stream")
            checkForwarded(head)
        }
    }

    /// What is sent says the same as what was judged, and writing it anew changes nothing more.
    private static func checkForwarded(_ head: HTTPRequestHead) {
        let bytes = head.forwarded()
        var parser = HTTPRequestHeadParser()
        let outcome = parser.parse(bytes)
        guard case .head(let again) = outcome else {
            // A head that is near the limits may grow beyond them by what is added.
            require(bytes.count > 16 * 1024 || bytes.count { $0 == 10 } > 100, "what is sent is malformed: \(outcome)")
            return
        }
        require(again.length == bytes.count, "what is sent ends early")
        require(again.method == head.method && again.host == head.host, "what is sent is for another host")
        require(again.framing == head.framing, "what is sent has another framing")
        require(again.isPersistent == head.isPersistent || head.asksForWebSocket, "what is sent persists otherwise")
        require(again.asksForWebSocket == head.asksForWebSocket, "what is sent upgrades otherwise")
        require(again.forwarded() == bytes, "sending twice changes something")
    }

    /// A response's head. The first byte chooses the request's method.
    static let httpResponse = FuzzTarget(name: "http-response") { bytes in
        let method = ["GET", "HEAD", "CONNECT", "POST"][Int(bytes.first ?? 0) & 3]
        let bytes = Array(bytes.dropFirst())
        let expected = HTTPResponseHead.parse(bytes, requestMethod: method)
        for prefix in Pieces.prefixes(of: bytes) {
            let outcome = HTTPResponseHead.parse(prefix, requestMethod: method)
            if case .needMore(let count) = outcome {
                require(count > prefix.count, "\(count) bytes are wanted, which are there")
            } else {
                require(outcome == expected, "\(prefix.count) bytes: \(outcome); in one go: \(expected)")
            }
        }
        guard case .head(let head) = expected else { return }
        require(head.length <= bytes.count, "longer than the stream")
        require((100...999).contains(head.status), "status \(head.status)")
    }

    /// A body. The first byte chooses its framing.
    static let httpBody = FuzzTarget(name: "http-body") { bytes in
        let framing: HTTPFraming =
            switch bytes.first {
            case 0: .none
            case 1: .length(UInt64(bytes.count / 2))
            case 2: .untilClose
            default: .chunked
            }
        let bytes = Array(bytes.dropFirst())
        let whole = scan([bytes], framing)
        let divided = scan(Pieces.parts(of: bytes), framing)
        require(whole == divided, "in one go \(whole), in pieces \(divided)")
    }

    /// How many bytes belong to the body, whether it is complete, and what is wrong with it.
    private static func scan(_ pieces: [[UInt8]], _ framing: HTTPFraming) -> [String] {
        var scanner = HTTPBodyScanner(framing)
        var count = 0
        do throws(WireError) {
            for piece in pieces {
                let consumed = try scanner.consume(piece)
                require(consumed == piece.count || scanner.isComplete, "stopped early")
                count += consumed
            }
        } catch {
            return ["\(error)"]
        }
        return ["\(count)", "\(scanner.isComplete)"]
    }

    /// A host with a port.
    static let httpAuthority = FuzzTarget(name: "http-authority") { bytes in
        guard let authority = try? HTTPAuthority(ascii: bytes) else { return }
        let text = Array(authority.description.utf8)
        require((try? HTTPAuthority(ascii: text)) == authority, "\(authority) is read back as something else")
    }

    /// Cleartext HTTP between a client and its servers: what is sent upstream is nothing but whole, judged requests,
    /// each with a body that is framed as its head says. The input is a list of events: a byte that says which side
    /// sends how much, and the bytes.
    static let httpForwarding = FuzzTarget(name: "http-forwarding") { bytes in
        var forwarding = HTTPForwarding()
        var upstream = UpstreamReader()
        var rest = bytes[...]
        var isOver = false
        func run(_ actions: [HTTPForwarding.Action]) {
            for action in actions {
                require(!isOver, "\(action) after the end")
                switch action {
                case .judge(let head):
                    upstream.judged.append(head)
                    run(forwarding.admit())
                case .sendUpstream(let bytes): upstream.read(bytes)
                case .finish, .refuseMalformed, .failUpstream, .loseUpstream, .handOver: isOver = true
                case .sendDownstream, .dropUpstream: break
                }
            }
        }
        while !isOver, let event = rest.popFirst() {
            let piece = Array(rest.prefix(Int(event & 0x3f) * 8))
            rest = rest.dropFirst(piece.count)
            switch event >> 6 {
            case 0,
                1 where forwarding.wantsDownstream:
                run(forwarding.receivedFromDownstream(piece))
            case 2: run(forwarding.receivedFromUpstream(piece))
            case 3 where event & 1 == 0: run(forwarding.downstreamEndedInput())
            case 3: run(forwarding.upstreamEnded(isBroken: event & 2 == 0))
            default: break
            }
        }
    }
}

/// Reads what goes upstream as a server would.
private struct UpstreamReader {
    var judged: [HTTPRequestHead] = []
    private var body = HTTPBodyScanner(.none)
    private var headsRead = 0

    mutating func read(_ bytes: [UInt8]) {
        var bytes = bytes
        while !bytes.isEmpty {
            if body.isComplete {
                var parser = HTTPRequestHeadParser()
                guard case .head(let head) = parser.parse(bytes) else { fatalError("a request that nobody judged") }
                require(headsRead < judged.count, "more requests than were judged")
                require(head.host == judged[headsRead].host, "a request for another host")
                headsRead += 1
                body = HTTPBodyScanner(head.framing)
                bytes.removeFirst(head.length)
            } else {
                guard let count = try? body.consume(bytes) else { fatalError("a body with broken framing") }
                bytes.removeFirst(count)
            }
        }
    }
}
