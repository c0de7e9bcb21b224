import EgressCore
import Testing
import WireFormat

/// A connection with its actions as readable text.
private struct Connection {
    private var machine = HTTPForwarding()

    var wantsDownstream: Bool { machine.wantsDownstream }
    var isIdle: Bool { machine.isIdle }

    mutating func client(_ text: String) -> [String] { describe(machine.receivedFromDownstream(Array(text.utf8))) }
    mutating func clientEnds() -> [String] { describe(machine.downstreamEndedInput()) }
    mutating func admit() -> [String] { describe(machine.admit()) }
    mutating func server(_ text: String) -> [String] { describe(machine.receivedFromUpstream(Array(text.utf8))) }
    mutating func serverEnds(isBroken: Bool = false) -> [String] { describe(machine.upstreamEnded(isBroken: isBroken)) }

    /// A request that is admitted and sent, up to its answer.
    mutating func request(_ text: String) {
        #expect(client(text).first?.hasPrefix("judge") == true)
        #expect(admit().first?.hasPrefix("up ") == true)
    }

    private func describe(_ actions: [HTTPForwarding.Action]) -> [String] {
        actions.map { action in
            switch action {
            case .judge(let head): "judge \(head.method) \(head.host)"
            case .sendUpstream(let bytes): "up " + text(bytes)
            case .sendDownstream(let bytes): "down " + text(bytes)
            case .dropUpstream: "drop"
            case .finish: "finish"
            case .handOver(let up, let down): "hand over \(text(up)) / \(text(down))"
            case .refuseMalformed: "malformed"
            case .failUpstream(let isUnanswered): isUnanswered ? "fail unanswered" : "fail"
            case .loseUpstream: "lose"
            }
        }
    }

    private func text(_ bytes: [UInt8]) -> String { String(decoding: bytes, as: UTF8.self) }
}

private let get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
private let ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"

@Suite struct HTTPForwardingTests {
    @Test func oneExchangeAfterTheOther() {
        var connection = Connection()
        #expect(connection.isIdle && connection.wantsDownstream)
        for host in ["a", "b"] {
            #expect(connection.client("GET / HTTP/1.1\r\nHost: \(host)\r\nTE: x\r\n\r\n") == ["judge GET \(host)"])
            #expect(!connection.isIdle && !connection.wantsDownstream)
            #expect(connection.admit() == ["up GET / HTTP/1.1\r\nHost: \(host)\r\n\r\n"])
            #expect(!connection.wantsDownstream)
            #expect(connection.server(ok + "h") == ["down \(ok)", "down h"])
            #expect(connection.server("i") == ["down i"])
            #expect(connection.isIdle && connection.wantsDownstream)
        }
        #expect(connection.clientEnds() == ["finish"])
    }

    @Test func pipelinedRequestWaitsForTheAnswer() {
        var connection = Connection()
        let second = "GET / HTTP/1.1\r\nHost: evil.test\r\n\r\n"
        #expect(connection.client(get + second) == ["judge GET a"])
        #expect(connection.admit() == ["up \(get)"])
        #expect(connection.server(ok + "h") == ["down \(ok)", "down h"])
        #expect(connection.server("i") == ["down i", "judge GET evil.test"])
        #expect(connection.admit() == ["up \(second)"])
    }

    @Test func bodyIsSentAndTheNextRequestFoundBehindIt() {
        var connection = Connection()
        let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        #expect(connection.client(head + "2\r\nhi\r\n") == ["judge POST a"])
        #expect(connection.admit() == ["up \(head)", "up 2\r\nhi\r\n"])
        #expect(connection.wantsDownstream)
        #expect(connection.client("0\r\n\r\n" + get) == ["up 0\r\n\r\n"])
        #expect(!connection.wantsDownstream)
        #expect(connection.server(ok + "hi") == ["down \(ok)", "down hi", "judge GET a"])
    }

    @Test func byteByByte() {
        var connection = Connection()
        let request = Array("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n".unicodeScalars)
        #expect(request.dropLast().allSatisfy { connection.client(String($0)).isEmpty })
        #expect(connection.client(String(request.last!)) == ["judge POST a"])
        _ = connection.admit()
        #expect(connection.client("h") == ["up h"])
        #expect(connection.client("i") == ["up i"])
        let text = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        let answer = Array(text.unicodeScalars)
        #expect(answer.dropLast().allSatisfy { connection.server(String($0)).isEmpty })
        #expect(connection.server(String(answer.last!)) == ["down \(text)"])
        #expect(connection.server("0\r\n\r") == ["down 0\r\n\r"])
        #expect(!connection.isIdle)
        #expect(connection.server("\n") == ["down \n"])
        #expect(connection.isIdle)
    }

    @Test func interimAnswersPass() {
        var connection = Connection()
        connection.request("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        #expect(connection.server("HTTP/1.1 100 Continue\r\n\r\n") == ["down HTTP/1.1 100 Continue\r\n\r\n"])
        #expect(connection.client("hi") == ["up hi"])
        #expect(connection.server("HTTP/1.1 103 Early Hints\r\n\r\n" + ok + "hi").count == 3)
        #expect(connection.isIdle)
    }

    @Test func answerWithoutBody() {
        var connection = Connection()
        connection.request("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")
        #expect(connection.server(ok) == ["down \(ok)"])
        #expect(connection.isIdle)
        connection.request(get)
        #expect(connection.server("HTTP/1.1 304 Not Modified\r\n\r\n").count == 1)
        #expect(connection.isIdle)
    }

    @Test func answerUntilClose() {
        var connection = Connection()
        connection.request(get)
        #expect(connection.server("HTTP/1.1 200 OK\r\n\r\nh") == ["down HTTP/1.1 200 OK\r\n\r\n", "down h"])
        #expect(connection.serverEnds() == ["drop", "finish"])
        #expect(connection.client(get) == [])
    }

    @Test func lastExchange() {
        for (request, answer) in [
            ("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", ok), ("GET / HTTP/1.0\r\nHost: a\r\n\r\n", ok),
            (get, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n"),
            (get, "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n"),
        ] {
            var connection = Connection()
            connection.request(request)
            #expect(connection.server(answer + "hi") == ["down \(answer)", "down hi", "drop", "finish"])
        }
    }

    @Test func clientThatHalfClosesGetsItsAnswer() {
        var connection = Connection()
        connection.request(get)
        #expect(connection.clientEnds() == [])
        #expect(connection.server(ok + "hi") == ["down \(ok)", "down hi", "finish"])
    }
}

// MARK: - Upgrades

@Suite struct HTTPForwardingUpgradeTests {
    private let handshake =
        "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: k\r\n\r\n"
    private let switching = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"

    @Test func webSocketIsHandedOver() {
        var connection = Connection()
        connection.request(handshake + "early")
        #expect(connection.server(switching + "frame") == ["hand over early / \(switching)frame"])
        #expect(connection.client("x") == [] && connection.server("y") == [])
    }

    @Test func refusedHandshakeIsAnOrdinaryAnswer() {
        var connection = Connection()
        connection.request(handshake + get)
        #expect(connection.server("HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n").last == "judge GET a")
    }

    @Test func upgradeThatNobodyAskedFor() {
        var connection = Connection()
        connection.request(
            "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\nConnection: Upgrade\r\nHTTP2-Settings: x\r\n\r\n"
        )
        #expect(connection.server(switching) == ["fail unanswered"])
    }
}

// MARK: - What must not pass

@Suite struct HTTPForwardingRefusalTests {
    @Test(arguments: [
        "GET / HTTP/1.1\r\n\r\n", "GET / HTTP/1.1\nHost: a\n\n", "EHLO a\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "\u{16}\u{3}\u{1}",
        "CONNECT a:443 HTTP/1.1\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    ])
    func malformedRequest(text: String) {
        var connection = Connection()
        #expect(connection.client(text) == ["malformed"])
        #expect(connection.client(get) == [] && connection.server(ok) == [] && !connection.wantsDownstream)

        var second = Connection()
        second.request(get + text)
        #expect(second.server(ok + "hi") == ["down \(ok)", "down hi", "malformed"])
    }

    @Test func nothingIsSentBeforeItIsAdmitted() {
        var connection = Connection()
        #expect(connection.client("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n") == ["judge POST a"])
        #expect(connection.client("hi" + get) == [])
        #expect(connection.clientEnds() == [])
        #expect(connection.admit() == ["up POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n", "up hi"])
        #expect(connection.admit() == [])
    }

    @Test func brokenChunk() {
        var connection = Connection()
        connection.request("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n")
        #expect(connection.client("2;x=y\r\n") == ["malformed"])
    }

    @Test func requestThatBreaksOff() {
        var connection = Connection()
        connection.request("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhi")
        #expect(connection.clientEnds() == ["drop", "finish"])

        var head = Connection()
        #expect(head.client("GET / HT") == [])
        #expect(head.clientEnds() == ["finish"])
    }

    /// What a server sends unasked must not become the answer to the next request, which may go to another server.
    @Test func unsolicitedAnswer() {
        var connection = Connection()
        connection.request(get)
        _ = connection.server(ok + "hi")
        #expect(connection.server("HTTP/1.1 408 Request Timeout\r\n") == ["drop"])
        #expect(connection.client(get) == ["judge GET a"])
        #expect(connection.server("HTTP/1.1 200 OK\r\n\r\n") == ["drop"])
        #expect(connection.admit() == ["up \(get)"])
        #expect(connection.server(ok + "hi") == ["down \(ok)", "down hi"])

        var together = Connection()
        together.request(get)
        #expect(together.server(ok + "hi" + ok) == ["down \(ok)", "down hi", "drop", "finish"])
    }

    /// A server that answers before it has the body may take the rest of it for a request that nobody judged.
    @Test func earlyAnswerIsTheLast() {
        var connection = Connection()
        connection.request("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 40\r\n\r\n")
        #expect(connection.server(ok + "h") == ["down \(ok)", "down h"])
        #expect(connection.server("i") == ["down i", "drop", "finish"])
        #expect(connection.client("GET / HTTP/1.1\r\nHost: evil.test\r\n\r\n") == [])
    }
}

// MARK: - Servers that fail

@Suite struct HTTPForwardingFailureTests {
    @Test func serverEndsEarly() {
        for (sent, isBroken, expected) in [
            ("", false, "lose"), ("HTTP/1.1 200", false, "fail unanswered"),
            ("HTTP/1.1 100 Continue\r\n\r\n", false, "fail unanswered"), (ok, false, "fail"), (ok + "h", true, "fail"),
            ("HTTP/1.1 200 OK\r\n\r\nhi", true, "fail"),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n", false, "fail"),
        ] {
            var connection = Connection()
            connection.request(get)
            _ = connection.server(sent)
            #expect(connection.serverEnds(isBroken: isBroken) == [expected], "after \(sent.debugDescription)")
            #expect(connection.serverEnds() == [])
        }
    }

    @Test func serverEndsBetweenExchanges() {
        var connection = Connection()
        connection.request(get)
        _ = connection.server(ok + "hi")
        #expect(connection.serverEnds() == ["drop"])
        #expect(connection.client(get) == ["judge GET a"])
        #expect(connection.serverEnds() == ["drop"])
        #expect(connection.admit() == ["up \(get)"])
    }

    @Test func answerThatIsNone() {
        var connection = Connection()
        connection.request(get)
        #expect(connection.server("SSH-2.0-x\r\n") == ["fail unanswered"])

        var framing = Connection()
        framing.request(get)
        #expect(
            framing.server("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n")
                == ["fail unanswered"]
        )

        var chunk = Connection()
        chunk.request(get)
        #expect(chunk.server("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx").last == "fail")
    }
}
