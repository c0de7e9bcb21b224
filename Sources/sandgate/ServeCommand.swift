import ArgumentParser
import Audit
import Control
import EgressPolicy
import Glibc
import Logging
import NetPrimitives
import PolicyDocument
import Reactor
import Sandboxes
import UpstreamDNS

/// `sandgate serve`: the node daemon.
struct ServeCommand: StagedCommand {
    static let configuration = CommandConfiguration(
        commandName: "serve",
        abstract: "Enforce policies on many sandbox networks, as a lifecycle server asks for.",
        discussion: """
            Serves an HTTP API on a Unix socket (and over TCP with --listen) through which network namespaces are put \
            under a policy, paused, renewed and released. What was acknowledged survives kill -9 and restarts; while \
            no daemon runs, sandboxes reach nothing.

            EXAMPLES:
              sandgate serve
              sandgate attach --create --policy policy.yaml
              sandgate ps
              curl --unix-socket /run/sandgate/api.sock http://localhost/v1/sandboxes
            """
    )

    @Option(
        help: ArgumentHelp("Read options from this YAML file; --print-config shows all of them.", valueName: "file")
    )
    var config: String?

    @Flag(help: "Print a configuration file with every option, its default and what it means.")
    var printConfig = false

    @Option(help: ArgumentHelp("The Unix socket to serve the API on.", valueName: "path"))
    var socket: String?

    @Option(help: ArgumentHelp("Also serve the API over TCP; needs --token-file.", valueName: "ip:port"))
    var listen: String?

    @Option(help: ArgumentHelp("The tokens that open the API over TCP, one a line.", valueName: "file"))
    var tokenFile: String?

    @Option(help: ArgumentHelp("Serve --listen over TLS with this certificate (PEM).", valueName: "file"))
    var tlsCertificate: String?

    @Option(help: ArgumentHelp("The certificate's key (PEM, not encrypted).", valueName: "file"))
    var tlsKey: String?

    @Option(
        name: .customLong("tls-client-ca"),
        help: ArgumentHelp("Let in only clients with a certificate of these authorities (PEM).", valueName: "file")
    )
    var tlsClientCA: String?

    @Option(help: ArgumentHelp("Where state is kept.", valueName: "dir"))
    var stateDir: String?

    @Option(help: ArgumentHelp("Where namespaces that are made are mounted.", valueName: "dir"))
    var runtimeDir: String?

    @Option(help: ArgumentHelp("Where the audit trail is written.", valueName: "dir"))
    var auditDir: String?

    @Option(
        parsing: .singleValue,
        help: ArgumentHelp(
            "Ask this DNS server, in the order given (default: those of /etc/resolv.conf).",
            valueName: "ip[:port]"
        )
    )
    var upstreamDNS: [String] = []

    @Option(help: ArgumentHelp("The policy for sandboxes that are created without one.", valueName: "file"))
    var defaultPolicy: String?

    @Option(
        help: ArgumentHelp(
            "Post what is refused to this URL (http or https), as batches of audit records in JSON.",
            valueName: "url"
        )
    )
    var denialWebhook: String?

    @Option(
        help: ArgumentHelp("Sign what is posted with the secret in this file (HMAC-SHA256).", valueName: "file")
    )
    var denialWebhookSecretFile: String?

    @Option(
        parsing: .singleValue,
        help: ArgumentHelp(
            "A bound on what each sandbox may take; --print-config shows those there are.",
            valueName: "name=number"
        )
    )
    var limit: [String] = []

    @Option(
        help: ArgumentHelp(
            "Say what the daemon itself does, on standard error: debug, info, warning, …",
            valueName: "level"
        ),
        transform: Diagnostics.level
    )
    var logLevel: Logger.Level = .info

    func begin() throws -> @Sendable () async throws -> Void {
        guard !printConfig else {
            Console.output(ServeSettings.documentation)
            return {}
        }
        Diagnostics.start(level: logLevel)
        try Privileges.requireForServe()
        var settings = try config.map(ServeSettings.load) ?? ServeSettings()
        if let socket { settings.socket = socket }
        if let listen { settings.listen = listen }
        if let tokenFile { settings.tokenFile = tokenFile }
        if let tlsCertificate { settings.tlsCertificate = tlsCertificate }
        if let tlsKey { settings.tlsKey = tlsKey }
        if let tlsClientCA { settings.tlsClientCA = tlsClientCA }
        if let stateDir { settings.stateDir = stateDir }
        if let runtimeDir { settings.runtimeDir = runtimeDir }
        if let auditDir { settings.auditDir = auditDir }
        if !upstreamDNS.isEmpty { settings.upstreamDNS = upstreamDNS }
        if let defaultPolicy { settings.defaultPolicy = defaultPolicy }
        if let denialWebhook { settings.denialWebhook = denialWebhook }
        if let denialWebhookSecretFile { settings.denialWebhookSecretFile = denialWebhookSecretFile }
        try LimitSetting.apply(limit, to: &settings.limits)
        let daemon = try Daemon(settings: settings)
        try daemon.giveUpPrivileges()
        return daemon.run
    }
}
