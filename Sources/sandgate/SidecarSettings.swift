import Confinement
import Control
import EgressPolicy
import FilePrimitives
import Glibc
import Logging
import NetPrimitives
import PolicyDocument
import Reactor
import Sandboxes
import UpstreamDNS
import Webhook

/// What `sandgate sidecar` is configured with: the variables of OpenSandbox's egress container.
struct SidecarSettings {
    /// The variables, as `--help` tells of them.
    static let documentation = """
        OPENSANDBOX_EGRESS_RULES                 the policy to begin with, JSON; empty, {} and null deny everything
        OPENSANDBOX_EGRESS_POLICY_FILE           a file that keeps the policy; read first, written on every change
        OPENSANDBOX_EGRESS_HTTP_ADDR             where the policy API listens (:18080)
        OPENSANDBOX_EGRESS_TOKEN                 what the header OPENSANDBOX-EGRESS-AUTH has to hold
        OPENSANDBOX_EGRESS_MODE                  dns or dns+nft; both enforce all there is, and dns+nft closes port 853 (DNS
                                                 over TLS) as well
        OPENSANDBOX_EGRESS_MAX_RULES             the most rules of a policy (4096); 0 for no bound
        OPENSANDBOX_EGRESS_DNS_UPSTREAM          the DNS servers to ask, IP[:PORT], comma-separated (at the first start in a
                                                 network those of /etc/resolv.conf, and afterwards the same)
        OPENSANDBOX_EGRESS_DNS_UPSTREAM_TIMEOUT  how long one may take, in seconds (5)
        OPENSANDBOX_EGRESS_BLOCK_DOH_443         true: no TLS or QUIC to the addresses of …_DOH_BLOCKLIST on 443
        OPENSANDBOX_EGRESS_DOH_BLOCKLIST         addresses and prefixes, comma-separated
        OPENSANDBOX_EGRESS_SANDBOX_ID            the sandbox's name in records
        OPENSANDBOX_EGRESS_DENY_WEBHOOK          a URL of http or https that is told of each name that is refused
        OPENSANDBOX_EGRESS_METRICS_EXTRA_ATTRS   NAME=VALUE, comma-separated, for every line that is logged
        OPENSANDBOX_EGRESS_LOG_LEVEL             debug, info, warn or error (info)
        SANDGATE_READ_ONLY_FROM_INSIDE           true: from within the sandbox the API only reads
        SANDGATE_ACCEPT_SIDE_PATHS               true: begins also where filters, routes or rules that are there already could
                                                 take packets past the rules
        SANDGATE_LIMITS                          bounds on what the sandbox may take, NAME=NUMBER, comma-separated;
                                                 sandgate serve --print-config shows those there are
        SANDGATE_ACCEPT_HARDWARE                 true: begins also where the network has a hardware device, as that of a virtual
                                                 machine has
        SANDGATE_AUDIT_DIR                       where the audit trail is written (/var/log/sandgate)
        SANDGATE_RULES_DIR                       deny.always and allow.always, read again when they change
                                                 (/var/egress/rules)
        """

    var sidecar = Sidecar.Configuration()
    var server = SidecarServer.Settings()
    var logLevel = Logger.Level.info
    var auditDirectory = "/var/log/sandgate"
    var rulesDirectory = "/var/egress/rules"
    /// Where refused names are told.
    var denyWebhook: WebhookEndpoint?
    /// What every line that is logged has besides: names and values.
    var attributes: [(name: String, value: String)] = []
    /// What is accepted and without effect.
    var remarks: [String] = []

    private static let prefix = "OPENSANDBOX_EGRESS_"
    private static let known: Set = [
        "RULES", "POLICY_FILE", "MODE", "TOKEN", "HTTP_ADDR", "MAX_RULES", "DNS_UPSTREAM", "DNS_UPSTREAM_TIMEOUT",
        "BLOCK_DOH_443", "DOH_BLOCKLIST", "SANDBOX_ID", "DENY_WEBHOOK", "METRICS_EXTRA_ATTRS", "LOG_LEVEL",
        "PROFILE",
    ]
    /// What the original closes or watches with, and nothing here does: without it the sandbox would reach more than its
    /// operator meant. Beginnings of names, and why.
    private static let refused = [
        ("UPSTREAM_PROXY", "connections are not led through another proxy here"),
        ("PUBLIC_POLICY", "there is one policy here, that of the sandbox"),
    ]
    /// As ``refused``, while they are on.
    private static let refusedSwitches = ["MITMPROXY_TRANSPARENT", "EXPERIMENTAL_REVISION_RUNTIME"]
    /// What the original knows and what is without effect here. Beginnings of names, and why.
    private static let idle = [
        ("NAMESERVER_EXEMPT", "every query goes to the resolver here"),
        ("DNS_UPSTREAM_PROBE", "servers are judged by the queries that there are"),
        ("REDIRECT_BACKEND", "nftables is spoken to directly"),
        ("MITMPROXY_", noInterception), ("CREDENTIAL_", noInterception), ("REVISION_", noInterception),
        ("EXPERIMENTAL_REVISION_", noInterception),
    ]
    private static let upstream = "\(prefix)DNS_UPSTREAM"
    private static let noInterception = "TLS is not intercepted here"

    /// Reads the environment. Throws a problem that names the variable.
    init(_ environment: [String: String]) throws {
        func value(_ name: String) -> String? {
            Self.text(environment[Self.prefix + name])
        }
        func fail(_ name: String, _ expectation: String) -> SetupError {
            SetupError("\(Self.prefix)\(name): expected \(expectation)")
        }
        auditDirectory = Self.text(environment["SANDGATE_AUDIT_DIR"]) ?? auditDirectory
        sidecar.keyDirectory = auditDirectory
        rulesDirectory = Self.text(environment["SANDGATE_RULES_DIR"]) ?? rulesDirectory
        server.isReadOnlyFromInside = Self.isTrue(environment["SANDGATE_READ_ONLY_FROM_INSIDE"] ?? "")
        sidecar.acceptsSidePaths = Self.isTrue(environment["SANDGATE_ACCEPT_SIDE_PATHS"] ?? "")
        do {
            try LimitSetting.apply(Self.list(environment["SANDGATE_LIMITS"]), to: &sidecar.limits)
        } catch {
            throw SetupError("SANDGATE_LIMITS: \(error)")
        }
        sidecar.id = value("SANDBOX_ID") ?? sidecar.id
        server.token = value("TOKEN")
        if let text = value("HTTP_ADDR") {
            guard let colon = text.lastIndex(of: ":"), let port = UInt16(text[text.index(after: colon)...]) else {
                throw fail("HTTP_ADDR", "HOST:PORT or :PORT")
            }
            let host = String(text[..<colon].filter { $0 != "[" && $0 != "]" })
            server.host = host.isEmpty ? nil : host == "localhost" ? "127.0.0.1" : host
            // What a name leads to is nobody's to say here.
            guard server.host.map({ IPAddress($0) != nil }) ?? true else {
                throw fail("HTTP_ADDR", "HOST:PORT or :PORT")
            }
            server.port = Int(port)
        }
        if let text = value("MAX_RULES") {
            guard let number = Int(text), number >= 0 else { throw fail("MAX_RULES", "a number, 0 for no bound") }
            server.maximumRules = number
        }
        if let text = value("MODE") {
            let parts = Set(text.lowercased().split(separator: "+").map { String($0).trimmed })
            let isKnown = parts.contains("dns") && parts.isSubset(of: ["dns", "nft"])
            guard isKnown else { throw fail("MODE", "dns or dns+nft") }
            // As the original has it there, whatever a policy allows: queries that nobody sees are for any name.
            if parts.contains("nft") { blocked += Self.everywhere(853) }
        }
        if let text = value("PROFILE"), text != "sidecar" {
            throw fail("PROFILE", "sidecar, which is what this is, found \(text)")
        }
        if let text = value("LOG_LEVEL") {
            let names = ["warn": "warning", "fatal": "critical"]
            guard let level = Logger.Level(rawValue: names[text.lowercased()] ?? text.lowercased()) else {
                throw fail("LOG_LEVEL", "debug, info, warn or error")
            }
            logLevel = level
        }
        if let text = value("DNS_UPSTREAM") {
            let servers = Self.list(text).map { server in
                // The original takes IPv6 in brackets without a port too.
                server.hasPrefix("[") && server.hasSuffix("]") ? String(server.dropFirst().dropLast()) : server
            }
            guard !servers.isEmpty else { throw fail("DNS_UPSTREAM", "addresses, comma-separated") }
            try setUpstream(try UpstreamOption.servers(servers, option: Self.upstream))
        }
        if let text = value("DNS_UPSTREAM_TIMEOUT") {
            guard let seconds = UInt64(text), (1...60).contains(seconds) else {
                throw fail("DNS_UPSTREAM_TIMEOUT", "a number of 1...60 seconds")
            }
            sidecar.upstreamTimeoutMilliseconds = Int(seconds) * 1_000
        }
        sidecar.policyFile = value("POLICY_FILE")
        // OpenSandbox mounts a volume there that the sandbox writes: a sidecar that begins again would believe it.
        if let file = sidecar.policyFile {
            let components = Self.place(of: file)?.split(separator: "/")
            guard file.hasPrefix("/"), let components, !components.contains(".."),
                !components.starts(with: ["opt", "opensandbox"])
            else {
                throw fail("POLICY_FILE", "an absolute path, to a place that the sandbox cannot write, found \(file)")
            }
        }
        sidecar.policy = try Self.policy(value("RULES"), file: sidecar.policyFile)
        try readBlocklist(isOn: Self.isTrue(value("BLOCK_DOH_443") ?? ""), Self.list(value("DOH_BLOCKLIST")))
        denyWebhook = try value("DENY_WEBHOOK").map { text in
            do { return try Self.webhook(text) } catch { throw SetupError("\(Self.prefix)DENY_WEBHOOK: \(error)") }
        }
        attributes = Self.attributes(sandbox: value("SANDBOX_ID"), value("METRICS_EXTRA_ATTRS"))
        remarks = try Self.remarks(environment)
    }

    /// What is said of variables without effect. Throws for one that a sandbox must not be without.
    private static func remarks(_ environment: [String: String]) throws -> [String] {
        // Of all components of OpenSandbox.
        let log = "OPENSANDBOX_LOG_OUTPUT"
        var remarks = environment[log] == nil ? [] : ["\(log) has no effect: the log goes to the standard error"]
        for (variable, text) in environment.sorted(by: { $0.key < $1.key }) where variable.hasPrefix(prefix) {
            let name = String(variable.dropFirst(prefix.count))
            func reason(_ reasons: [(String, String)]) -> String? { reasons.first { name.hasPrefix($0.0) }?.1 }
            guard !known.contains(name), !text.trimmed.isEmpty else { continue }
            if let why = reason(refused) { throw SetupError("\(variable.onOneLine): \(why)") }
            guard !refusedSwitches.contains(name) else {
                guard !isTrue(text) else { throw SetupError("\(variable): \(noInterception)") }
                continue
            }
            let why = reason(idle) ?? "Sandgate does not know it"
            remarks.append("\(variable.onOneLine) has no effect: \(why)")
        }
        return remarks
    }

    private mutating func setUpstream(_ servers: [Endpoint]) throws {
        if let server = servers.first(where: { $0.address.isLoopback }) {
            throw SetupError(
                "the DNS server \(server) is in this network, where the sandbox could answer in its name: "
                    + "name another with \(Self.upstream)"
            )
        }
        sidecar.upstreamServers = servers
    }

    /// Where no server is named, has those asked that `predecessor` asked in this network, or, at the first start, those of
    /// the system. Throws where they differ and nobody knows who wrote either.
    mutating func completeUpstream(after predecessor: Sidecar.Predecessor) throws {
        guard sidecar.upstreamServers.isEmpty else { return }
        let asked = predecessor.servers
        guard !asked.isEmpty else { return try setUpstream(try UpstreamOption.servers([], option: Self.upstream)) }
        try setUpstream(asked)
        let system = UpstreamResolver.systemServers()
        guard system != asked else { return }
        let found = system.isEmpty ? "no DNS server" : system.map(\.description).joined(separator: ", ")
        let before = asked.map(\.description).joined(separator: ", ")
        guard predecessor.isKnown else {
            throw SetupError(
                "/etc/resolv.conf names \(found), and rules in this network name \(before); who wrote either is not known, "
                    + "without \(NetworkKey.path(in: auditDirectory)) of the sidecar before: name the DNS servers with "
                    + Self.upstream
            )
        }
        remarks.append(
            "/etc/resolv.conf names \(found) now, and whoever shares it may have written that: asking \(before), as before in "
                + "this network; to change it, set \(Self.upstream)"
        )
    }

    private var blocked: [Rule] = []

    /// The operator's rules, as they stand in the files now.
    func always() throws -> AlwaysRules {
        AlwaysRules(deny: try alwaysDenied() + blocked, allow: try load("allow", .allow))
    }

    /// The rules of `deny.always`, as they stand in the file now.
    func alwaysDenied() throws -> [Rule] { try load("deny", .deny) }

    private func load(_ name: String, _ action: RuleAction) throws -> [Rule] {
        let path = "\(rulesDirectory)/\(name).always"
        // One that cannot be reached, and one that is a link to nothing, is no file without rules.
        var status = stat()
        return lstat(path, &status) != 0 && errno == ENOENT ? [] : try AlwaysFile.load(path, action: action)
    }

    /// The files that may change while it runs.
    var ruleFiles: [String] { ["deny", "allow"].map { "\(rulesDirectory)/\($0).always" } }

    /// The directories that it writes in.
    var directories: [String] {
        [auditDirectory] + (sidecar.policyFile.map { [PathName.directory(of: $0)] } ?? [])
    }

    private mutating func readBlocklist(isOn: Bool, _ entries: [String]) throws {
        guard !entries.isEmpty else {
            // As the original has it: without a list, nobody gets to 443.
            if isOn { blocked += Self.everywhere(443) }
            return
        }
        blocked += try entries.map { text in
            guard let prefix = (try? IPPrefix(parsing: text)) ?? IPAddress(text).map(IPPrefix.init(host:)) else {
                throw SetupError("\(Self.prefix)DOH_BLOCKLIST: expected addresses and prefixes, found \(text)")
            }
            return Rule(.deny, .addresses(prefix), ports: [PortRange(443, 443)!])
        }
    }

    /// Rules that close a port to every address.
    private static func everywhere(_ port: UInt16) -> [Rule] {
        [IPPrefix(IPAddress(v4: 0), length: 0), IPPrefix(IPAddress(v6: 0), length: 0)].map { prefix in
            Rule(.deny, .addresses(prefix), ports: [PortRange(port, port)!])
        }
    }

    /// Where a file lies, or would lie: all links on the way are followed. `nil` for a link that leads to nothing yet.
    private static func place(of file: String) -> String? {
        var missing: [Substring] = []
        var existing = file.split(separator: "/").filter { $0 != "." }
        while true {
            let path = "/" + existing.joined(separator: "/")
            if let resolved = RealPath.of(path) {
                return ([resolved] + missing.map(String.init)).joined(separator: "/")
            }
            var status = stat()
            guard lstat(path, &status) != 0, let last = existing.popLast() else { return nil }
            missing.insert(last, at: 0)
        }
    }

    private static func webhook(_ text: String) throws -> WebhookEndpoint {
        let endpoint = try WebhookEndpoint(url: text)
        let address = IPAddress(endpoint.host)
        guard address != nil || (try? DomainName(endpoint.host)) != nil else {
            throw SetupError("the URL's host is neither a name nor an address")
        }
        let isNowhere = address.map(Sidecar.isNeverConnected) ?? (endpoint.host.lowercased() == "localhost")
        guard !isNowhere else {
            throw SetupError(
                "\(endpoint.host) is in this network, where the sandbox could answer, or no server's address"
            )
        }
        return endpoint
    }

    /// As the original reads them: what is no pair is passed over, and nobody gives the sandbox another name. Control
    /// characters, which could make lines of their own, are left out.
    private static func attributes(sandbox: String?, _ text: String?) -> [(name: String, value: String)] {
        let identity = "sandbox_id"
        let pairs: [(name: String, value: String)] = list(text).compactMap { part in
            guard let equals = part.firstIndex(of: "="), part.index(after: equals) < part.endIndex else { return nil }
            let name = String(part[..<equals]).trimmed
            guard !name.isEmpty, name != identity else { return nil }
            return (name, String(part[part.index(after: equals)...]).trimmed)
        }
        return ((sandbox.map { [(identity, $0)] } ?? []) + pairs).map { ($0.name.onOneLine, $0.value.onOneLine) }
    }

    private static func policy(_ rules: String?, file: String?) throws -> Policy? {
        // One that cannot be looked at is not taken for one that is not there.
        if let file, access(file, F_OK) == 0 || errno != ENOENT {
            return try PolicyFile.load(file, kept: true, refusingSetup: SidecarServer.noSetup).policy
        }
        guard let rules, !["{}", "null"].contains(rules) else { return nil }
        do {
            let name = "\(prefix)RULES"
            let document = try PolicyDocument.load(bytes: Array(rules.utf8), format: .json, file: name, now: .current)
            try document.refuseSetup(file: name, SidecarServer.noSetup)
            return document.policy
        } catch {
            throw SetupError(error.problems.map(\.description).joined(separator: "\n"))
        }
    }

    /// What a variable says; `nil` for one that is empty, which says nothing.
    private static func text(_ value: String?) -> String? {
        value.map { $0.trimmed }.flatMap { $0.isEmpty ? nil : $0 }
    }

    private static func list(_ text: String?) -> [String] {
        (text ?? "").split(separator: ",").map { String($0).trimmed }.filter { !$0.isEmpty }
    }

    /// Whether a switch is on.
    static func isTrue(_ text: String) -> Bool {
        ["1", "true", "yes", "y", "on"].contains(text.trimmed.lowercased())
    }
}

extension String {
    fileprivate var trimmed: String {
        String(drop { $0.isWhitespace }.reversed().drop { $0.isWhitespace }.reversed())
    }
}

extension String {
    /// The text without its control characters.
    fileprivate var onOneLine: String {
        String(String.UnicodeScalarView(unicodeScalars.filter { $0.properties.generalCategory != .control }))
    }
}
