import Crypto
import EgressPolicy
import FoundationEssentials
import HTTPTypes
import Hummingbird
public import Logging
import NIOCore
import Namespaces
import NetPrimitives
import PolicyDocument
import Reactor
public import Sandboxes

/// The API of OpenSandbox's egress container, for its SDKs and server: `/policy` and `/healthz`, and that there is no
/// `CredentialVault`. Statuses, bodies and error texts are theirs (specs/egress-api.yaml); what is malformed is refused here,
/// where they may take it.
///
/// Everybody in the sandbox can reach the port. Who comes from within needs the token; without one the API is closed to
/// them, and open to who comes from outside. A token does not keep a sandbox out that can read it on its way
/// (OpenSandbox's SDK sends it through a proxy in the sandbox): ``Settings/isReadOnlyFromInside`` does.
public struct SidecarServer: Sendable {
    /// How it serves.
    public struct Settings: Sendable {
        /// Where it listens; every address when `nil`.
        public var host: String?
        /// The port.
        public var port = 18_080
        /// What the header OPENSANDBOX-EGRESS-AUTH has to hold; `nil` for nothing.
        public var token: String?
        /// Whether who comes from within the sandbox may only read, with the token.
        public var isReadOnlyFromInside = false
        /// The most rules that a policy may have; 0 for no bound.
        public var maximumRules = 4_096

        /// The defaults.
        public init() {}
    }

    private let sidecar: Sidecar
    private let settings: Settings
    private let log: Logger

    /// A server for a sidecar that enforces already.
    public init(_ sidecar: Sidecar, _ settings: Settings, log: Logger) {
        self.sidecar = sidecar
        self.settings = settings
        self.log = log
    }

    /// Serves until the task is cancelled. `onReady` is called when clients can connect.
    public func run(onReady: @escaping @Sendable () async -> Void) async throws {
        let gate = Gate(settings: settings, log: log)
        let responder = CallbackResponder { (request: Request, context: ControlContext) in
            do {
                return try await respond(to: request, context, gate)
            } catch let error as PlainText {
                return PlainText.answer(error.message + "\n", error.status)
            }
        }
        let host = try host()
        let service = HTTPService(
            address: .hostname(host, port: settings.port),
            place: HTTPService.text(host: host, port: settings.port),
            // The sandbox can open as many connections as it likes.
            server: .http1(configuration: HTTPService.boundedConnections),
            log: log
        )
        try await service.run(responder, onReady: onReady)
    }

    /// Paths are taken as they are: neither a slash at the end nor two in a row are passed over.
    private func respond(to request: Request, _ context: ControlContext, _ gate: Gate) async throws -> Response {
        switch request.uri.path {
        case "/healthz":
            let problem = await sidecar.problem
            return bodiless(PlainText.answer(problem ?? "ok", problem == nil ? .ok : .serviceUnavailable), request)
        case "/policy":
            if let refusal = try await gate.refusal(of: request, context.channel) { return bodiless(refusal, request) }
            return bodiless(try await answer(request, context.channel), request)
        case let path where CredentialVault.has(path):
            if path != CredentialVault.active, let refusal = try await gate.refusal(of: request, context.channel) {
                return bodiless(refusal, request)
            }
            return bodiless(CredentialVault.answer(to: request, hasToken: settings.token != nil), request)
        default:
            return bodiless(PlainText.answer("404 page not found\n", .notFound), request)
        }
    }

    /// HEAD is answered as GET would be, without the body (RFC 9110 9.3.2).
    private func bodiless(_ response: Response, _ request: Request) -> Response {
        request.method == .head ? response.createHeadResponse() : response
    }

    /// Both families, where there are both.
    private func host() throws -> String {
        if let host = settings.host { return host }
        return try nodeAddresses().contains { $0.family == .v6 } ? "::" : "0.0.0.0"
    }
}

// MARK: - Answers

extension SidecarServer {
    /// What is answered about a policy.
    private struct Body {
        var mode: String
        var enforcementMode: String?
        var reason: String?
        /// The policy, where it was asked for.
        var policy: String?

        /// As the original writes it: these members in this order, and those that it leaves out left out.
        var json: String {
            let texts: [(String, String?)] = [
                ("status", "ok"), ("mode", mode), ("enforcementMode", enforcementMode), ("reason", reason),
            ]
            // None of them holds what would have to be escaped.
            var members = texts.compactMap { name, value in value.map { "\"\(name)\":\"\($0)\"" } }
            if let policy { members.append("\"policy\":\(policy)") }
            return "{\(members.joined(separator: ","))}\n"
        }
    }

    /// A policy; one that was reset has `null` in place of its rules.
    private static func text(_ policy: Policy?) -> String {
        let rules = policy.map { "[\($0.rules.map(PolicyDocument.json(of:)).joined(separator: ","))]" }
        let action = (policy ?? Policy()).defaultAction.rawValue
        var members = ["\"egress\":\(rules ?? "null")", "\"defaultAction\":\"\(action)\""]
        if let mode = policy?.mode, mode != .enforce { members.append("\"mode\":\"\(mode.rawValue)\"") }
        return "{\(members.joined(separator: ","))}"
    }

    /// Every name, address and packet is judged, whichever of the original's modes was asked for.
    private static let enforcementMode = "dns+nft"

    private static func mode(_ policy: Policy?) -> String {
        // Denials are recorded then, and nothing more.
        if policy?.mode == .report { return "allow_all" }
        guard let policy, !policy.rules.isEmpty else {
            return policy?.defaultAction == .allow ? "allow_all" : "deny_all"
        }
        return "enforcing"
    }

    /// Why a policy has no set-up phase here: OpenSandbox's API, which this one is, has nothing to lock it with.
    public static let noSetup = "a sidecar has no set-up phase: change the policy when set-up has ended"

    private func answer(_ request: Request, _ channel: any Channel) async throws -> Response {
        func body() async throws -> [UInt8] { try await Self.body(of: request, over: channel) }
        switch request.method {
        case .get, .head:
            let policy = await sidecar.policy
            return Self.json(
                Body(
                    mode: Self.mode(policy),
                    enforcementMode: Self.enforcementMode,
                    policy: Self.text(policy)
                )
            )
        case .patch: return try await patch(try await body())
        case .delete: return try await delete(try await body())
        case .post, .put: return try await replace(try await body())
        default:
            return PlainText.notAllowed("GET, POST, PUT, PATCH, DELETE")
        }
    }

    private func replace(_ bytes: [UInt8]) async throws -> Response {
        guard !bytes.allSatisfy(Self.isSpace) else {
            try await change { _ in nil }
            return Self.json(Body(mode: "deny_all", reason: "policy reset to default deny-all"))
        }
        let policy: Policy
        do {
            let document = try PolicyDocument.load(bytes: bytes, format: .json, file: "body", now: .current)
            try document.refuseSetup(file: "body", Self.noSetup)
            policy = document.policy
        } catch {
            throw PlainText(.badRequest, "invalid policy: \(Self.words(error))")
        }
        let isReset = Self.isNull(bytes) || bytes.filter { !Self.isSpace($0) } == Array("{}".utf8)
        return Self.changed(try await change { _ in isReset ? nil : policy })
    }

    private func patch(_ bytes: [UInt8]) async throws -> Response {
        guard !bytes.allSatisfy(Self.isSpace) else { throw PlainText(.badRequest, "empty body") }
        guard !Self.isNull(bytes) else { throw PlainText(.badRequest, "invalid patch rules: empty array") }
        let rules: [Rule]
        do {
            rules = try PolicyDocument.loadRules(bytes: bytes, format: .json, file: "body", now: .current).rules
        } catch {
            throw PlainText(.badRequest, "invalid patch rules: \(Self.words(error))")
        }
        guard !rules.isEmpty else { throw PlainText(.badRequest, "invalid patch rules: empty array") }
        // Of rules for the same, the first holds.
        var seen: Set<Subject> = []
        let first = rules.filter { seen.insert(Subject($0)).inserted }
        let subjects = seen
        let policy = try await change { policy in
            var changed = policy ?? Policy()
            changed.rules = first + changed.rules.filter { !subjects.contains(Subject($0)) }
            return changed
        }
        return Self.changed(policy)
    }

    /// What a rule speaks of, as far as a patch replaces it: rules for other ports of a target stand beside each other.
    private struct Subject: Hashable {
        let target: Target
        let ports: Set<PortRange>
        let transport: TransportProtocol?
        let statesAnyTransport: Bool

        init(_ rule: Rule) {
            target = rule.target
            ports = Set(rule.ports)
            transport = rule.transport
            statesAnyTransport = rule.statesAnyTransport
        }
    }

    private func delete(_ bytes: [UInt8]) async throws -> Response {
        guard !bytes.allSatisfy(Self.isSpace) else { throw PlainText(.badRequest, "empty body") }
        guard !Self.isNull(bytes) else { throw PlainText(.badRequest, "invalid delete targets: empty array") }
        let texts: [String]
        do {
            texts = try PolicyDocument.loadTexts(bytes: bytes, format: .json, file: "body")
        } catch {
            throw PlainText(.badRequest, "invalid delete targets: \(Self.words(error))")
        }
        // What is no target is none of the policy's.
        let targets = Set(texts.compactMap { try? Target(parsing: $0) })
        guard !texts.isEmpty else { throw PlainText(.badRequest, "invalid delete targets: empty array") }
        let current = await sidecar.policy
        guard current?.rules.contains(where: { targets.contains($0.target) }) == true else {
            return Self.json(
                Body(
                    mode: Self.mode(current),
                    enforcementMode: Self.enforcementMode,
                    reason: "no matching targets found"
                )
            )
        }
        let policy = try await change(isBounded: false) { policy in
            var changed = policy ?? Policy()
            changed.rules.removeAll { targets.contains($0.target) }
            return changed
        }
        return Self.changed(policy)
    }

    /// Puts a change in force. What takes rules away is not held to the bound on their number.
    @discardableResult
    private func change(
        isBounded: Bool = true,
        _ body: @Sendable (Policy?) throws -> Policy?
    ) async throws -> Policy? {
        let limit = isBounded ? settings.maximumRules : 0
        do {
            let policy = try await sidecar.changePolicy { policy in
                let changed = try body(policy)
                let count = changed?.rules.count ?? 0
                guard limit == 0 || count <= limit else {
                    throw PlainText(.contentTooLarge, "egress rule total count \(count) exceeds limit \(limit)")
                }
                return changed
            }
            log.info(
                "policy changed",
                metadata: ["mode": "\(Self.mode(policy))", "rules": "\(policy?.rules.count ?? 0)"]
            )
            return policy
        } catch let error as PlainText {
            throw error
        } catch let error as Sidecar.KeepingError {
            throw PlainText(.internalServerError, "failed to persist policy: \(error)")
        } catch {
            throw PlainText(.internalServerError, "failed to apply nftables policy: \(error)")
        }
    }

    private static func changed(_ policy: Policy?) -> Response {
        json(Body(mode: mode(policy), enforcementMode: enforcementMode))
    }

    private static func body(of request: Request, over channel: any Channel) async throws -> [UInt8] {
        var request = request
        let tooLarge = PlainText(.contentTooLarge, "failed to read body: at most \(bodyLimit) bytes are accepted")
        if let length = request.headers[.contentLength].flatMap(Int.init), length > bodyLimit { throw tooLarge }
        do {
            try await ContinueResponse.send(for: request, over: channel)
            return Array(try await request.collectBody(upTo: bodyLimit).readableBytesView)
        } catch let error as any HTTPResponseError where error.status == .contentTooLarge {
            throw tooLarge
        } catch {
            throw PlainText(.badRequest, "failed to read body: \(error)")
        }
    }

    /// As the original's; it takes what is longer for what its beginning says.
    private static let bodyLimit = 1 << 20

    /// Whether all there is is `null`.
    private static func isNull(_ bytes: [UInt8]) -> Bool {
        bytes.filter { !isSpace($0) } == Array("null".utf8)
    }

    private static func isSpace(_ byte: UInt8) -> Bool { [0x20, 0x09, 0x0a, 0x0d].contains(byte) }

    private static func words(_ error: any Error) -> String {
        guard let error = error as? DocumentError else { return "\(error)" }
        return error.problems.map { $0.path.isEmpty ? $0.message : "\($0.path): \($0.message)" }.joined(separator: "; ")
    }

    private static func json(_ body: Body) -> Response {
        Answer.raw(Array(body.json.utf8), type: "application/json")
    }
}

// MARK: - Who may

/// Decides who may use the API.
private struct Gate: Sendable {
    let settings: SidecarServer.Settings
    let log: Logger

    /// Guessing a token is not to be quick.
    private static let penaltyMilliseconds = 250
    private static let header = HTTPField.Name("OPENSANDBOX-EGRESS-AUTH")!

    /// The answer to a request that is refused.
    func refusal(of request: Request, _ channel: any Channel) async throws -> Response? {
        let isInside = try isInside(channel)
        let place = "\(channel.remoteAddress.map { "\($0)" } ?? "?")"
        if let token = settings.token {
            guard let given = request.headers[Self.header], Self.isSame(given, token) else {
                log.warning("a request without the token was refused", metadata: ["from": "\(place)"])
                try? await Task.sleep(for: .milliseconds(Self.penaltyMilliseconds))
                return PlainText.answer("unauthorized\n", .unauthorized)
            }
        } else if isInside {
            log.warning("a request from within the sandbox was refused", metadata: ["from": "\(place)"])
            return PlainText.answer("forbidden: without a token the sandbox has no part in this\n", .forbidden)
        }
        let isReading = [.get, .head].contains(request.method)
        guard isReading || !isInside || !settings.isReadOnlyFromInside else {
            log.warning("a change from within the sandbox was refused", metadata: ["from": "\(place)"])
            return PlainText.answer("forbidden: from within the sandbox this can only be read\n", .forbidden)
        }
        if !isReading {
            log.info("a change is asked for", metadata: ["from": "\(place)", "method": "\(request.method)"])
        }
        return nil
    }

    /// Whether the other end is in the sandbox's network, which is ours. Nobody else comes from one of its addresses: what
    /// says so and arrives from outside is dropped by the kernel, being a martian.
    private func isInside(_ channel: any Channel) throws -> Bool {
        guard let text = channel.remoteAddress?.ipAddress, let address = IPAddress(text) else { return true }
        // An IPv4 client of a socket that serves both families has a mapped address (RFC 4291 2.5.5.2).
        let isMapped = text.lowercased().hasPrefix("::ffff:") && text.contains(".")
        guard let own = isMapped ? IPAddress(String(text.dropFirst(7))) : address else { return true }
        return try own.isLoopback || nodeAddresses().contains(own)
    }

    /// In constant time, lengths included.
    private static func isSame(_ left: String, _ right: String) -> Bool {
        SHA256.hash(data: Data(left.utf8)) == SHA256.hash(data: Data(right.utf8))
    }
}
