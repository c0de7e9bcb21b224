import Audit
import EgressPolicy
import NetPrimitives
import PolicyDocument
import PolicySuggestion
import Testing

let start = try! #require(Timestamp.time(parsing: "2026-11-26T12:00:00Z".utf8))

/// One record as text, as a file holds it.
struct Record {
    var event = "connection.allowed"
    var host: String? = "api.example.com"
    var ip: String? = "203.0.113.5"
    var port: Int? = 443
    var transport: String? = "tcp"
    var verdict = "allow"
    var reason = "default"
    var isReport = true
    var sandbox = "sbx-1"
    var second: Int64 = 0
    var more = ""

    func line() throws -> AuditLine {
        func quoted(_ text: String?) -> String {
            guard let text else { return "null" }
            var quoted = ""
            for scalar in text.unicodeScalars {
                let digits = String(scalar.value, radix: 16)
                quoted +=
                    scalar.isASCII && scalar.value >= 32 && scalar != "\"" && scalar != "\\"
                    ? String(scalar) : "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
            }
            return "\"\(quoted)\""
        }
        let time = Timestamp.text(of: start.advanced(bySeconds: second))
        let text = """
            {"seq":1,"ts":"\(time)","sandbox":\(quoted(sandbox)),"event":"\(event)","verdict":"\(verdict)",\
            \(isReport ? "\"report\":true," : "")"reason":"\(reason)","host":\(quoted(host)),"ip":\(quoted(ip)),\
            "port":\(port.map(String.init) ?? "null"),"protocol":\(quoted(transport))\(more),"prev":null}
            """
        return try AuditLine(parsing: Array(text.utf8))
    }
}

/// A query that was answered in report mode.
func query(_ host: String, verdict: String = "allow") -> Record {
    let isAnswer = verdict == "allow"
    return Record(
        event: isAnswer ? "dns.allowed" : "dns.denied",
        host: host,
        ip: nil,
        port: nil,
        transport: nil,
        verdict: verdict,
        isReport: isAnswer
    )
}

func observed(_ records: [Record]) throws -> Observations {
    var observations = Observations()
    for record in records { observations.observe(try record.line()) }
    return observations
}

func suggested(
    _ records: [Record],
    base: String? = nil,
    threshold: UInt64 = 1,
    collapses: Bool = false
) throws -> SuggestedPolicy {
    var options = PolicySuggester.Options()
    options.base = try base.map { try policy($0) }
    options.baseName = "base.yaml"
    options.threshold = threshold
    options.collapses = collapses
    return PolicySuggester.suggest(from: try observed(records), options: options, at: start)
}

func policy(_ text: String) throws -> Policy {
    try PolicyDocument.load(bytes: Array(text.utf8), format: .yaml, file: "policy", now: start).policy
}

/// What a rule says, in short: `api.example.com 443/tcp`.
func short(_ rule: Rule) -> String {
    "\(rule.target) \(rule.ports.map(\.description).joined(separator: ","))/\(rule.transport.map { "\($0)" } ?? "any")"
}
