import Audit
import EgressPolicy
import FoundationEssentials
import Hummingbird
import NetPrimitives
import PolicyDocument
import Reactor
import Sandboxes

/// `/v1/policies`: questions about policies that need not be in force anywhere.
struct PolicyToolRoutes {
    let node: SandboxNode
    /// The Unix socket that commands have to name; `nil` for the usual one.
    let socket: String?

    func add(to group: RouterGroup<some RequestContext>) {
        group.post("policies/check") { request, _ in try await check(request) }
        group.post("policies/explain") { request, _ in try await explain(request) }
        group.post("policies/suggest") { request, _ in try await suggest(request) }
        group.get("policies/always") { _, _ in Answer.json(AlwaysBody(await node.operatorRules)) }
        group.post("policies/diff") { request, _ in try await diff(request) }
    }

    /// Compares `old` (or the policy in force for `sandbox`) with `new`, both with the node's rules before them.
    private func diff(_ request: Request) async throws -> Response {
        let comparison = try PolicyComparison.load(bytes: try await request.bytes(), file: "body", now: .current)
        let old: Policy
        if let id = comparison.sandbox {
            old = try await node.policy(of: id).policy
        } else {
            old = comparison.old
        }
        let difference = PhasedDifference(
            from: try await node.compile(old, for: comparison.sandbox),
            to: try await node.compile(comparison.new, for: comparison.sandbox),
            at: .current
        )
        return Answer.json(DifferenceDocument(difference, to: comparison.new))
    }

    /// What a check found.
    private struct Findings: Encodable {
        let valid: Bool
        let policy: Policy?
        let problems: [APIError.Detail]
        let warnings: [APIError.Detail]
    }

    private func check(_ request: Request) async throws -> Response {
        func details(_ problems: [Problem]) -> [APIError.Detail] {
            problems.map { .init(path: $0.path, message: $0.message, line: $0.line, column: $0.column) }
        }
        let bytes = try await request.bytes(["application/json", "application/yaml"])
        do {
            let document = try PolicyDocument.load(bytes: bytes, format: .automatic, file: "body", now: .current)
            let warnings = details(document.warnings)
            return Answer.json(Findings(valid: true, policy: document.policy, problems: [], warnings: warnings))
        } catch {
            return Answer.json(Findings(valid: false, policy: nil, problems: details(error.problems), warnings: []))
        }
    }

    /// What is asked beside the policy.
    private struct Question: Decodable {
        let host: String?
        let ip: String?
        let port: UInt16?
        let `protocol`: String?
        /// In place of a policy in the body: the one that is in force for this sandbox.
        let sandbox: String?

        private enum CodingKeys: String, CodingKey, CaseIterable {
            case host, ip, port, `protocol`, sandbox, networkPolicy
        }

        /// Any key, to find those that mean nothing: a question with a mistyped one would be another question.
        private struct AnyKey: CodingKey {
            let stringValue: String
            var intValue: Int? { nil }

            init(stringValue: String) { self.stringValue = stringValue }
            init?(intValue: Int) { nil }
        }

        init(from decoder: any Decoder) throws {
            let members = try decoder.container(keyedBy: CodingKeys.self)
            for key in try decoder.container(keyedBy: AnyKey.self).allKeys
            where CodingKeys(rawValue: key.stringValue) == nil {
                let names = Spelling.expectation(of: CodingKeys.allCases.map(\.rawValue), for: key.stringValue)
                throw APIError.parameter(key.stringValue, "unknown key: expected \(names)")
            }
            host = try members.decodeIfPresent(String.self, forKey: .host)
            ip = try members.decodeIfPresent(String.self, forKey: .ip)
            port = try members.decodeIfPresent(UInt16.self, forKey: .port)
            `protocol` = try members.decodeIfPresent(String.self, forKey: .protocol)
            sandbox = try members.decodeIfPresent(String.self, forKey: .sandbox)
            guard sandbox == nil || !members.contains(.networkPolicy) else {
                throw APIError.parameter("sandbox", "stands beside networkPolicy: only one of them is accepted")
            }
        }
    }

    /// Judges a destination by the policy in the body, or by that of a sandbox, with the node's rules before it.
    private func explain(_ request: Request) async throws -> Response {
        let bytes = try await request.bytes()
        let question: Question
        do {
            question = try JSONDecoder().decode(Question.self, from: Data(bytes))
        } catch let error as APIError {
            throw error
        } catch {
            throw APIError.parameter(
                "body",
                "expected an object with host or ip, port, protocol, and networkPolicy or sandbox"
            )
        }
        guard question.host != nil || question.ip != nil else { throw APIError.parameter("host", "missing") }
        let address = try question.ip.map { text in
            guard let address = IPAddress(text) else { throw APIError.parameter("ip", "expected an address") }
            return address
        }
        guard let transport = TransportProtocol(named: question.protocol ?? "tcp") else {
            throw APIError.parameter("protocol", "expected tcp or udp")
        }
        guard let port = Optional(question.port ?? 443), port > 0 else {
            throw APIError.parameter("port", "expected 1...65535")
        }
        let policy: Policy
        if let id = question.sandbox {
            policy = try await node.policy(of: id).policy
        } else {
            policy = try CreateRequest.loadPolicy(bytes: bytes, file: "body", now: .current)
        }
        let explanation = Explanation(
            of: try await node.compile(policy, for: question.sandbox),
            host: question.host,
            address: address,
            port: port,
            transport: transport,
            at: .current
        )
        return Answer.json(explanation.document)
    }

    /// The one rule that would let pass what a sandbox was refused, and where it has to stand; or why there is none.
    private func suggest(_ request: Request) async throws -> Response {
        let question = try RefusalQuestion(bytes: try await request.bytes())
        let event = try question.event()
        let (policy, record) = try await node.policy(of: question.sandbox)
        let remedy = Remedy(for: event, under: try await node.compile(policy, for: question.sandbox), at: .current)
        return Answer.json(
            SuggestionBody(remedy, for: question, revision: record.revision, socket: socket),
            headers: [.eTag: PolicyRoutes.tag(record.revision)]
        )
    }

    /// The operator's rules: those that stand before every policy, and what answers have allowed behind them.
    private struct AlwaysBody: Encodable {
        let deny: [Rule]
        let allow: [Rule]
        let answers: [Rule]

        init(_ rules: AlwaysRules) {
            deny = rules.deny
            allow = rules.allow
            answers = rules.answers
        }
    }
}

extension TransportProtocol {
    fileprivate init?(named name: String) {
        switch name {
        case "tcp": self = .tcp
        case "udp": self = .udp
        default: return nil
        }
    }
}
