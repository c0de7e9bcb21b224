import EgressCore
import EgressPolicy
import NetPrimitives

/// What the proxy itself says to HTTP clients. Every one of these but the first ends the connection.
enum ProxyResponse {
    /// The answer to a CONNECT that was admitted (RFC 9110 9.3.6).
    static let connectionEstablished = Array("HTTP/1.1 200 Connection established\r\n\r\n".utf8)

    /// The server cannot be reached.
    static let badGateway = response("502 Bad Gateway", #"{"error":"upstream_failed"}"#)

    /// The request cannot be read in one way only.
    static let badRequest = response("400 Bad Request", #"{"error":"malformed_request"}"#)

    /// The policy refuses it: a JSON body with the host, the rule and the reason.
    static func denied(_ verdict: Verdict, host: String?) -> [UInt8] {
        let rule =
            verdict.rule.map {
                #"{"index":\#($0.index),"action":"\#($0.action.rawValue)","target":\#(quoted($0.target.description))}"#
            } ?? "null"
        let host = host.map(quoted) ?? "null"
        return response(
            "403 Forbidden",
            #"{"error":"egress_denied","host":\#(host),"reason":"\#(verdict.reason.rawValue)","rule":\#(rule)}"#
        )
    }

    private static func response(_ status: String, _ body: String) -> [UInt8] {
        let head = [
            "HTTP/1.1 \(status)", "Content-Type: application/json", "Content-Length: \(body.utf8.count + 1)",
            "Connection: close", "Server: sandgate",
        ]
        return Array((head.joined(separator: "\r\n") + "\r\n\r\n" + body + "\n").utf8)
    }

    /// A JSON string; everything but printable ASCII is escaped, since a host may hold what the sandbox likes.
    private static func quoted(_ text: String) -> String {
        var quoted = "\""
        for unit in text.utf16 {
            switch unit {
            case 0x22, 0x5c: quoted += "\\" + String(UnicodeScalar(UInt8(unit)))
            case 0x20..<0x7f: quoted.unicodeScalars.append(UnicodeScalar(UInt8(unit)))
            default:
                let digits = String(unit, radix: 16)
                quoted += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
            }
        }
        return quoted + "\""
    }
}
