import Audit
import EgressCore
import EgressPolicy
import FoundationEssentials
import NetPrimitives
import PolicyDocument

/// A refusal that somebody asks a remedy for: the members of an audit record, of which what is not known is absent.
struct RefusalQuestion: Decodable {
    let sandbox: String
    let host: String?
    let ip: String?
    let port: UInt16?
    let `protocol`: String?
    let layer: String?
    let reason: String?

    init(bytes: [UInt8]) throws {
        do {
            self = try JSONDecoder().decode(RefusalQuestion.self, from: Data(bytes))
        } catch {
            throw APIError.parameter(
                "body",
                "expected an object with sandbox, and host, ip, port, protocol as recorded"
            )
        }
        guard host != nil || ip != nil else { throw APIError.parameter("host", "missing") }
    }

    /// As the event that the record was made of.
    func event() throws -> AuditEvent {
        var event = AuditEvent(.connectionDenied, time: WallTime(microseconds: 0), sandbox: sandbox)
        event.layer = try layer.map { text in
            guard let layer = AuditEvent.Layer(rawValue: text) else {
                throw APIError.parameter("layer", "expected a layer as recorded, such as dns")
            }
            return layer
        }
        guard let reason = Reason(rawValue: reason ?? Reason.default.rawValue) else {
            throw APIError.parameter("reason", "expected a reason as recorded, such as default")
        }
        event.verdict = Verdict(.deny, reason)
        event.host = host
        event.address = try ip.map { text in
            guard let address = IPAddress(text) else { throw APIError.parameter("ip", "expected an address") }
            return address
        }
        event.port = port
        switch `protocol` ?? "tcp" {
        case "tcp": event.ipProtocol = TransportProtocol.tcp.rawValue
        case "udp": event.ipProtocol = TransportProtocol.udp.rawValue
        case "icmp": event.ipProtocol = 1
        case "icmpv6": event.ipProtocol = 58
        case let text:
            guard let number = UInt8(text) else { throw APIError.parameter("protocol", "expected one as recorded") }
            event.ipProtocol = number
        }
        return event
    }
}

/// What would let a refused thing pass, as it is answered.
struct SuggestionBody: Encodable {
    /// `rule`, `allowed` or `advice`.
    let outcome: String
    /// The policy's revision that was asked; what is changed by it must still have it.
    let revision: UInt64
    /// The rule.
    var rule: Rule?
    /// The rule as a line of a policy file.
    var line: String?
    /// Its place, as the parameter of the request that adds it.
    var before: Int?
    /// The rule that refuses, in words.
    var refusal: String?
    /// What has to be known of the rule.
    var remark: String?
    /// The command that adds it.
    var command: String?
    /// Why there is none.
    var advice: String?

    /// `socket` is where the command finds the daemon; `nil` for the usual place.
    init(_ remedy: Remedy, for question: RefusalQuestion, revision: UInt64, socket: String?) {
        self.revision = revision
        switch remedy {
        case .allowed: outcome = "allowed"
        case .advice(let text):
            outcome = "advice"
            advice = text
        case .rule(let proposal):
            outcome = "rule"
            rule = proposal.rule
            line = PolicyDocument.yaml(of: proposal.rule)
            before = proposal.index
            refusal = proposal.refusal?.place
            remark = proposal.remark
            command = Self.command(proposal, question, socket)
        }
    }

    /// Ids, names and addresses that got here hold nothing that a shell reads; wildcards in a path of ours might.
    private static func command(_ proposal: Remedy.Proposal, _ question: RefusalQuestion, _ socket: String?) -> String {
        let target: String
        switch proposal.rule.target {
        case .addresses(let prefix):
            target = prefix.address.family == .v6 ? "[\(prefix.address)]" : "\(prefix.address)"
        default: target = "\(proposal.rule.target)"
        }
        var words = ["sandgate", "allow"]
        if let socket {
            let quoted = socket.split(separator: "'", omittingEmptySubsequences: false).joined(separator: #"'\''"#)
            words += ["--socket", "'\(quoted)'"]
        }
        if proposal.rule.transport == .udp { words += ["--protocol", "udp"] }
        // Where a rule refuses, it may be because of the address.
        if proposal.refusal != nil, question.host != nil, let address = question.ip { words += ["--ip", address] }
        let port = proposal.rule.ports.first.map { ":\($0)" } ?? ""
        words += [question.sandbox, "'\(target)\(port)'"]
        return words.joined(separator: " ")
    }
}
