import Glibc
import NetPrimitives
import WireFormat

/// What a decoder sees, on one line, for another program to compare with what it sees itself.
enum Decoder: String, CaseIterable {
    case dnsQuery = "dns-query"
    case dnsMessage = "dns-message"
    case clientHello = "client-hello"
    case httpRequest = "http-request"
    case httpForwarded = "http-forwarded"
    case httpResponse = "http-response"

    /// Decodes everything on standard input.
    func run() {
        while let length = Self.read(4) {
            guard let input = Self.read(length.reduce(0) { $0 << 8 | Int($1) }) else { break }
            print(describe(input))
        }
    }

    private static func read(_ count: Int) -> [UInt8]? {
        var bytes = [UInt8](repeating: 0, count: count)
        var filled = 0
        while filled < count {
            let got = bytes[filled...].withUnsafeMutableBytes { Glibc.read(STDIN_FILENO, $0.baseAddress, $0.count) }
            guard got > 0 else { return nil }
            filled += got
        }
        return bytes
    }

    private func describe(_ bytes: [UInt8]) -> String {
        switch self {
        case .dnsQuery: Self.query(bytes)
        case .dnsMessage: Self.message(bytes)
        case .clientHello: Self.hello(bytes)
        case .httpRequest: Self.requests(bytes)
        case .httpForwarded: Self.forwarded(bytes)
        case .httpResponse: Self.response(bytes)
        }
    }

    private static func hex(_ bytes: some Sequence<UInt8>) -> String {
        bytes.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
    }

    private static func query(_ bytes: [UInt8]) -> String {
        guard let query = try? DNSQuery(parsing: bytes) else { return "refused" }
        return "\(query.id) \(hex(query.wireName.bytes)) \(query.type.rawValue)"
    }

    /// The question, and of every answer of class IN the owner, type and, for addresses and aliases, data.
    private static func message(_ bytes: [UInt8]) -> String {
        guard let message = try? DNSMessage(decoding: bytes) else { return "refused" }
        let question = message.questions.map { "\(hex($0.name.bytes))/\($0.type.rawValue)" }
        let answers = message.answers.filter { $0.recordClass == 1 }.map { record in
            let shown = record.address != nil || record.canonicalName != nil
            return "\(hex(record.owner.bytes))/\(record.type.rawValue)/\(shown ? hex(record.data) : "")"
        }
        return "\(message.id) \(message.code.rawValue) " + (question + answers).joined(separator: " ")
    }

    private static func hello(_ bytes: [UInt8]) -> String {
        var parser = ClientHelloParser()
        switch parser.parse(bytes) {
        case .needMore: return "more"
        case .notTLS: return "not-tls"
        case .malformed: return "refused"
        case .hello(let hello):
            switch hello.serverName {
            case .absent: return "absent"
            case .malformed: return "refused"
            case .name(let name): return "name \(name)"
            }
        }
    }

    /// Each request on a connection: method, host and the bytes of its body, until one is refused or not complete.
    /// `opaque` for what would be passed on without its being judged as HTTP.
    private static func requests(_ bytes: [UInt8]) -> String {
        var rest = bytes
        var seen: [String] = []
        while !rest.isEmpty {
            var parser = HTTPRequestHeadParser()
            let outcome = parser.parse(rest)
            if case .notHTTP = outcome, seen.isEmpty { return "opaque" }
            guard case .head(let head) = outcome else { return (seen + ["refused"]).joined(separator: " ") }
            rest.removeFirst(head.length)
            var body = HTTPBodyScanner(head.framing)
            guard let count = try? body.consume(rest), body.isComplete else {
                return (seen + ["refused"]).joined(separator: " ")
            }
            seen.append("\(head.method)|\(head.host)|\(hex(rest.prefix(count)))")
            rest.removeFirst(count)
            if !head.isPersistent || head.asksForWebSocket { break }
        }
        return seen.joined(separator: " ")
    }

    /// The head that is sent in place of the first request's, and its body; what a server would get.
    private static func forwarded(_ bytes: [UInt8]) -> String {
        var parser = HTTPRequestHeadParser()
        guard case .head(let head) = parser.parse(bytes) else { return "refused" }
        var body = HTTPBodyScanner(head.framing)
        let rest = Array(bytes.dropFirst(head.length))
        guard let count = try? body.consume(rest), body.isComplete else { return "refused" }
        return "\(head.host) \(hex(head.forwarded() + rest.prefix(count)))"
    }

    /// The final response to a GET behind any interim ones: its status, its body with its framing, and how many bytes
    /// follow it, if it is complete before the connection ends or with it.
    private static func response(_ bytes: [UInt8]) -> String {
        var rest = bytes
        while true {
            guard case .head(let head) = HTTPResponseHead.parse(rest, requestMethod: "GET") else { return "refused" }
            rest.removeFirst(head.length)
            if head.status < 200 && head.status != 101 { continue }
            var body = HTTPBodyScanner(head.framing)
            guard let count = try? body.consume(rest) else { return "refused" }
            body.connectionEnded()
            return
                "\(head.status) \(body.isComplete ? "whole" : "cut") \(rest.count - count) \(hex(rest.prefix(count)))"
        }
    }
}
