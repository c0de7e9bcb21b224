import Audit
import Confinement
import Control
import Datapath
import EgressPolicy
import Namespaces
import NetPrimitives
import PolicyDocument
import Sandboxes
import UpstreamDNS
import Webhook
import Yams

/// What `sandgate serve` is configured with: a YAML file, whose options the command line overrides.
struct ServeSettings: Sendable {
    var socket = "/run/sandgate/api.sock"
    var listen: String?
    var tokenFile: String?
    var tlsCertificate: String?
    var tlsKey: String?
    var tlsClientCA: String?
    var stateDir = "/var/lib/sandgate"
    var runtimeDir = "/run/sandgate"
    var auditDir = "/var/log/sandgate"
    var auditFileMegabytes = 64
    var auditFileHours = 24
    var auditFiles = 32
    var upstreamDNS: [String] = []
    var defaultPolicy: String?
    var denyAlways: String?
    var allowAlways: String?
    var answers: String?
    var denialWebhook: String?
    var denialWebhookSecretFile: String?
    var loops: Int?
    var maximumSandboxes = 20_000
    var maximumUpstreamInside = 1_000
    var auditQueueRecords = 200_000
    var auditRecordsPerSecondWhenLate = 200
    var upstreamMilliseconds = 2_000
    var limits = Attachment.Limits()
    var containerSockets = ContainerRuntime.defaultSockets

    /// Every option, as a file that says what is the default.
    static let documentation = general + "\n\n" + bounds + LimitSetting.documentation

    /// The options, which the documentation shows with their defaults or commented out.
    private static var names: [String] {
        documentation.split(separator: "\n").compactMap { line in
            let text = line.hasPrefix("# ") ? line.dropFirst(2) : line
            let name = text.prefix { $0.isLetter }
            return !name.isEmpty && text.dropFirst(name.count).hasPrefix(":") ? String(name) : nil
        }
    }

    private static let general = """
        # Configuration of sandgate serve. Every option is shown with its default; all of them may be left out.

        # The Unix socket that the API is served on, mode 0600. Its directory is made, mode 0700.
        socket: /run/sandgate/api.sock

        # Also serve the API over TCP at this address and port. Needs tokenFile.
        # listen: 127.0.0.1:7480

        # A file of tokens, one a line (at least 16 bytes), each followed by read-only where it may change nothing.
        # tokenFile: /etc/sandgate/tokens

        # Speak TLS (1.2 or later) there: the certificate with its chain and its key, in PEM form. With tlsClientCA, only
        # clients with a certificate of its authorities are let in; they need a token all the same. Read again on SIGHUP.
        # tlsCertificate: /etc/sandgate/tls.crt
        # tlsKey: /etc/sandgate/tls.key
        # tlsClientCA: /etc/sandgate/clients.crt

        # Where sandboxes are remembered, a file each. On a disk that outlives a restart of the machine.
        stateDir: /var/lib/sandgate

        # Where namespaces that are made are mounted (below netns/). On a file system that does not outlive it.
        runtimeDir: /run/sandgate

        # Where the audit trail is written, and when a file of it is followed by the next. 0 files keeps all.
        auditDir: /var/log/sandgate
        auditFileMegabytes: 64
        auditFileHours: 24
        auditFiles: 32

        # The DNS servers that are asked, in this order. None: those of /etc/resolv.conf.
        upstreamDNS: []

        # The policy (YAML or JSON) for sandboxes that are created without one. None: everything is denied.
        # Read again on SIGHUP and when the file changes, as are the next three.
        # defaultPolicy: /etc/sandgate/default.yaml

        # Targets, one a line (# begins a comment), that stand before every policy: those of denyAlways first.
        # denyAlways: /etc/sandgate/deny.always
        # allowAlways: /etc/sandgate/allow.always

        # Where the answer "always" to a question is kept (sandboxes that were attached with --ask), as rules behind each
        # policy of such sandboxes; read again as well. None: nobody can answer so. Its directory has to be writable.
        # answers: /var/lib/sandgate/answers.yaml

        # Post what is refused to this URL (http or https): {"node": …, "lost": …, "records": […]}, at most 500 audit
        # records at a time, a second after the first of them. Signed with the secret in the file (at least 16 bytes), if
        # there is one: X-Sandgate-Signature: sha256=HMAC-SHA256 of the body, in hexadecimal.
        # denialWebhook: https://siem.example/sandgate
        # denialWebhookSecretFile: /etc/sandgate/webhook.secret

        # How many threads carry traffic. None: as many as there are processors.
        # loops: 2

        # Where container engines are asked, for {"container": ID}.
        containerSockets: [/run/docker.sock, /var/run/docker.sock, /run/podman/podman.sock]
        """

    private static let bounds = """
        # Bounds. How each shows in the audit trail when it bites: the page Limits of the documentation.

        # Of the node: sandboxes, those among them that connect from their own network (upstreamInside; 0 forbids it), audit
        # records that wait to be written, how many of each sandbox are taken a second while more than half of those wait, and
        # how long a DNS server may take.
        maximumSandboxes: 20000
        maximumUpstreamInside: 1000
        auditQueueRecords: 200000
        auditRecordsPerSecondWhenLate: 200
        upstreamMilliseconds: 2000

        # Of each sandbox.

        """

    /// Reads a file. Throws a problem that names the option.
    static func load(_ path: String) throws -> ServeSettings {
        let text = String(decoding: try PolicyFile.read(path), as: UTF8.self)
        let node: Node?
        do {
            node = try Yams.compose(yaml: text)
        } catch {
            throw SetupError("\(path): \(error)")
        }
        var settings = ServeSettings()
        guard let node else { return settings }
        guard let mapping = node.mapping else { throw SetupError("\(path): expected a mapping of options") }
        for (key, value) in mapping {
            guard let name = key.string else { throw SetupError("\(path): expected the name of an option") }
            do {
                try settings.set(name, value)
            } catch let error as SetupError {
                let line = key.mark.map { ":\($0.line)" } ?? ""
                throw SetupError("\(path)\(line): \(name): \(error)")
            }
        }
        return settings
    }

    private mutating func set(_ name: String, _ value: Node) throws {
        switch name {
        case "socket": socket = try Self.text(value)
        case "listen": listen = try Self.text(value)
        case "tokenFile": tokenFile = try Self.text(value)
        case "tlsCertificate": tlsCertificate = try Self.text(value)
        case "tlsKey": tlsKey = try Self.text(value)
        case "tlsClientCA": tlsClientCA = try Self.text(value)
        case "stateDir": stateDir = try Self.text(value)
        case "runtimeDir": runtimeDir = try Self.text(value)
        case "auditDir": auditDir = try Self.text(value)
        case "auditFileMegabytes": auditFileMegabytes = try Self.number(value, 1...1_000_000)
        case "auditFileHours": auditFileHours = try Self.number(value, 1...100_000)
        case "auditFiles": auditFiles = try Self.number(value, 0...1_000_000)
        case "upstreamDNS": upstreamDNS = try Self.texts(value)
        case "defaultPolicy": defaultPolicy = try Self.text(value)
        case "denyAlways": denyAlways = try Self.text(value)
        case "allowAlways": allowAlways = try Self.text(value)
        case "answers": answers = try Self.text(value)
        case "denialWebhook": denialWebhook = try Self.text(value)
        case "denialWebhookSecretFile": denialWebhookSecretFile = try Self.text(value)
        case "loops": loops = try Self.number(value, 1...1_024)
        case "maximumSandboxes": maximumSandboxes = try Self.number(value, 1...1_000_000)
        case "maximumUpstreamInside": maximumUpstreamInside = try Self.number(value, 0...1_000)
        case "auditQueueRecords": auditQueueRecords = try Self.number(value, 100...10_000_000)
        case "auditRecordsPerSecondWhenLate": auditRecordsPerSecondWhenLate = try Self.number(value, 1...1_000_000)
        case "upstreamMilliseconds": upstreamMilliseconds = try Self.number(value, 10...60_000)
        case "containerSockets": containerSockets = try Self.texts(value)
        default:
            guard let limit = LimitSetting.all.first(where: { $0.name == name }) else {
                let proposal = Spelling.proposal(for: name, among: Self.names)
                throw SetupError("unknown option; sandgate serve --print-config shows those there are\(proposal)")
            }
            limit.set(&limits, try Self.number(value, limit.range))
        }
    }

    private static func text(_ node: Node) throws -> String {
        guard let text = node.string, !text.isEmpty else { throw SetupError("expected a string") }
        return text
    }

    private static func texts(_ node: Node) throws -> [String] {
        guard let sequence = node.sequence else { throw SetupError("expected a list of strings") }
        return try sequence.map(text)
    }

    private static func number(_ node: Node, _ range: ClosedRange<Int>) throws -> Int {
        guard let number = node.int, range.contains(number) else {
            throw SetupError("expected a number of \(range.lowerBound)...\(range.upperBound)")
        }
        return number
    }
}

// MARK: - What it means

extension ServeSettings {
    /// What a node is made with.
    func nodeConfiguration() throws -> NodeConfiguration {
        var configuration = NodeConfiguration()
        configuration.stateDirectory = stateDir
        configuration.runtimeDirectory = runtimeDir
        configuration.auditDirectory = auditDir
        configuration.auditLimits.maximumFileBytes = UInt64(auditFileMegabytes) << 20
        configuration.auditLimits.maximumFileAgeSeconds = Int64(auditFileHours) * 3_600
        configuration.auditLimits.maximumFiles = auditFiles
        configuration.upstreamServers = try UpstreamOption.servers(upstreamDNS)
        (configuration.defaultPolicy, configuration.always) = try rules()
        configuration.answers = try answers.map { try AnswerFile(path: $0) }
        configuration.loops = loops ?? ProcessorCount.available
        configuration.limits = limits
        configuration.queueLimits.maximumRecords = auditQueueRecords
        configuration.queueLimits.recordsPerSecondWhenLate = auditRecordsPerSecondWhenLate
        configuration.upstreamTimeoutMilliseconds = upstreamMilliseconds
        configuration.maximumSandboxes = maximumSandboxes
        configuration.maximumUpstreamInside = maximumUpstreamInside
        configuration.containers = ContainerRuntime(sockets: containerSockets)
        configuration.control = try reachableListen()
        return configuration
    }

    /// What ``listen`` says; `nil` when there is none, or it is malformed.
    var listenEndpoint: Endpoint? { listen.flatMap { Endpoint(parsing: $0, defaultPort: 7_480) } }

    /// Where `listen` can be reached from beyond this machine's loopback: of "every address", the first of each family.
    private func reachableListen() throws -> [Endpoint] {
        guard let endpoint = listenEndpoint else { return [] }
        let isEverywhere = [IPAddress(v4: 0), IPAddress(v6: 0)].contains(endpoint.address)
        let candidates = isEverywhere ? try nodeAddresses() : [endpoint.address]
        // A link-local address means nothing without its link.
        let reachable = candidates.filter { !$0.isLoopback && !IPPrefix.linkLocal6.contains($0) }
        return [IPAddress.Family.v4, .v6].compactMap { family in
            reachable.first { $0.family == family }.map { Endpoint($0, endpoint.port) }
        }
    }

    /// What is shown over TLS; `nil` when there is none.
    func tlsIdentity() throws -> TLSIdentity? {
        guard let certificate = tlsCertificate, let key = tlsKey else {
            if tlsCertificate != nil { throw SetupError("--tls-certificate needs --tls-key") }
            if tlsKey != nil { throw SetupError("--tls-key needs --tls-certificate") }
            if tlsClientCA != nil { throw SetupError("--tls-client-ca needs --tls-certificate and --tls-key") }
            return nil
        }
        guard listen != nil else { throw SetupError("--tls-certificate needs --listen") }
        return try TLSIdentity(
            TLSIdentity.Files(certificate: certificate, key: key, clientAuthorities: tlsClientCA),
            read: { try PolicyFile.read($0) }
        )
    }

    /// Where refusals are told; `nil` for nowhere.
    func webhookEndpoint() throws -> WebhookEndpoint? {
        guard let denialWebhook else {
            guard denialWebhookSecretFile == nil else {
                throw SetupError("--denial-webhook-secret-file needs --denial-webhook")
            }
            return nil
        }
        do {
            _ = try WebhookEndpoint(url: denialWebhook)
        } catch {
            // Not with the URL: it may hold what is nobody's business.
            throw SetupError("--denial-webhook: \(error)")
        }
        guard let path = denialWebhookSecretFile else { return try WebhookEndpoint(url: denialWebhook) }
        let secret = try PolicyFile.read(path)
        do {
            return try WebhookEndpoint(url: denialWebhook, secret: secret)
        } catch {
            throw SetupError("\(path): \(error)")
        }
    }

    /// The files that may change while the daemon runs.
    var ruleFiles: [String] { [defaultPolicy, denyAlways, allowAlways, answers].compactMap { $0 } }

    /// Other files that are read when privileges have been given up, at the start or again while it runs.
    var secretFiles: [String] {
        [tlsCertificate, tlsKey, tlsClientCA, tokenFile, denialWebhookSecretFile].compactMap { $0 }
    }

    /// The directories that it writes in.
    var directories: [String] {
        [stateDir, runtimeDir, auditDir, PathName.directory(of: socket)]
            + [answers.map(PathName.directory)].compactMap { $0 }
    }

    /// Its time would count from the reading of the file, and a lock of one sandbox would leave it to the others.
    private static let noSetup = "the default policy has no set-up phase: a sandbox gets one with its own networkPolicy"

    /// What stands in them now, but for the answers.
    func rules() throws -> (defaultPolicy: Policy, always: AlwaysRules) {
        let document = try defaultPolicy.map { try PolicyFile.load($0, kept: true, refusingSetup: Self.noSetup) }
        let policy = document?.policy ?? Policy()
        var always = AlwaysRules()
        always.deny = try denyAlways.map { try AlwaysFile.load($0, action: .deny) } ?? []
        always.allow = try allowAlways.map { try AlwaysFile.load($0, action: .allow) } ?? []
        return (policy, always)
    }
}

/// A file of targets, one a line; `#` begins a comment.
enum AlwaysFile {
    static func load(_ path: String, action: RuleAction) throws -> [Rule] {
        let text = String(decoding: try PolicyFile.read(path, kept: true), as: UTF8.self)
        var rules: [Rule] = []
        for (index, line) in text.split(separator: "\n", omittingEmptySubsequences: false).enumerated() {
            let words = line.prefix { $0 != "#" }.split(whereSeparator: \.isWhitespace)
            guard let word = words.first else { continue }
            guard words.count == 1 else { throw SetupError("\(path):\(index + 1): expected one target a line") }
            do {
                rules.append(Rule(action, try Target(parsing: String(word))))
            } catch {
                throw SetupError("\(path):\(index + 1): \(error)")
            }
        }
        return rules
    }
}
