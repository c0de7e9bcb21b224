import ArgumentParser
import FoundationEssentials
import Glibc
import NetPrimitives
import PolicyDocument

/// What the commands that ask a running daemon have in common.
struct DaemonOptions: ParsableArguments {
    @Option(help: ArgumentHelp("The daemon's socket.", valueName: "path"))
    var socket = APIClient.defaultSocket

    @Flag(help: "Print the daemon's answer as it is.")
    var json = false

    var client: APIClient { APIClient(socket: socket) }
}

/// A sandbox as the daemon tells of it.
private struct SandboxSummary: Decodable {
    struct Status: Decodable {
        let state: String
        let reason: String?
        let message: String?
    }

    struct Policy: Decodable {
        struct Rule: Decodable {
            let action: String
            let target: String
            let ports: [Port]?
            let `protocol`: String?
            let expiresAt: String?

            /// One line: `allow a.example, ports 443, 8000-8100, tcp, until 2030-01-01T00:00:00Z`.
            var text: String {
                let ports = ports.map { ", ports \($0.map(\.text).joined(separator: ", "))" } ?? ""
                let ending = [`protocol`, expiresAt.map { "until \($0)" }].compactMap { $0.map { ", \($0)" } }
                return "\(action) \(target)\(ports)\(ending.joined())"
            }
        }

        /// A number, or a range as a text.
        struct Port: Decodable {
            let text: String

            init(from decoder: any Decoder) throws {
                let value = try decoder.singleValueContainer()
                text = try (try? value.decode(Int.self)).map(String.init) ?? value.decode(String.self)
            }
        }

        struct Setup: Decodable {
            let expiresAt: String
            let egress: [Rule]
        }

        let defaultAction: String
        let mode: String?
        let egress: [Rule]
        let setup: Setup?

        /// How many rules there are, for a table.
        var count: String {
            egress.count.counted("rule") + (setup.map { ", \($0.egress.count) in set-up" } ?? "")
        }
    }

    let id: String
    let status: Status
    let networkNamespace: String?
    let policy: Policy
    let revision: UInt64
    let createdAt: String
    let expiresAt: String?
    let lockedAt: String?
}

/// `sandgate ps`: the sandboxes of a running daemon.
struct ListCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "ps",
        abstract: "List the sandboxes of a running daemon.",
        discussion: """
            The exit status is 0, or 1 when there is no daemon to ask.

            EXAMPLES:
              sandgate ps
              sandgate ps --json | jq -r '.items[].id'
            """
    )

    @OptionGroup var options: DaemonOptions

    @Flag(name: .shortAndLong, help: "Also those whose time is over.")
    var all = false

    private struct Page: Decodable {
        let items: [SandboxSummary]
        let nextCursor: String?

        /// The items as they stand in the answer, separated by commas.
        func text(in answer: Data) throws -> Substring {
            let text = String(decoding: answer, as: UTF8.self)
            let (start, end) = ("{\"items\":[", nextCursor.map { "],\"nextCursor\":\"\($0)\"}" } ?? "]}")
            guard text.hasPrefix(start), text.hasSuffix(end) else {
                throw SetupError("the daemon's list of sandboxes has another form than expected")
            }
            return text.dropFirst(start.count).dropLast(end.count)
        }
    }

    /// So many are asked for at once.
    private static let pageSize = 1_000

    func run() throws {
        var texts: [Substring] = []
        var rows: [[String]] = []
        var cursor: String?
        repeat {
            let position = try cursor.map { "&cursor=\(try SandboxPath.component($0))" } ?? ""
            let target = "/v1/sandboxes?limit=\(Self.pageSize)\(all ? "&state=all" : "")\(position)"
            let answer = try options.client.ask("GET", target)
            let page = try JSONDecoder().decode(Page.self, from: answer)
            cursor = page.nextCursor
            if options.json {
                let text = try page.text(in: answer)
                if !text.isEmpty { texts.append(text) }
            } else {
                rows += page.items.map(Self.row)
            }
        } while cursor != nil
        guard !options.json else { return Console.output("{\"items\":[\(texts.joined(separator: ","))]}") }
        for line in TextTable.aligned([["ID", "STATE", "POLICY", "REVISION", "EXPIRES", "NAMESPACE"]] + rows) {
            Console.output(line)
        }
    }

    private static func row(_ sandbox: SandboxSummary) -> [String] {
        [
            sandbox.id, sandbox.status.state, sandbox.policy.count, "rev \(sandbox.revision)",
            sandbox.expiresAt.map { String($0.prefix(19)) + "Z" } ?? "never", sandbox.networkNamespace ?? "-",
        ]
    }
}

/// `sandgate inspect ID`: one sandbox in full.
struct InspectCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "inspect",
        abstract: "Show a sandbox of a running daemon, with the policy in force.",
        discussion: """
            EXAMPLES:
              sandgate inspect box
              sandgate inspect box --json | jq '.policy'
            """
    )

    @OptionGroup var options: DaemonOptions

    @Argument(help: "The sandbox.")
    var id: String

    func run() throws {
        let answer = try options.client.ask("GET", "/v1/sandboxes/\(try SandboxPath.component(id))")
        guard !options.json else { return Console.output(String(decoding: answer, as: UTF8.self)) }
        let sandbox = try JSONDecoder().decode(SandboxSummary.self, from: answer)
        Console.output("id:         \(sandbox.id)")
        Console.output("state:      \(sandbox.status.state)")
        if let message = sandbox.status.message { Console.output("because:    \(APIClient.shown(message))") }
        if sandbox.status.state == "Failed" {
            Console.output("            Nothing leaves it. To try again: sandgate retry \(sandbox.id)")
        }
        Console.output("namespace:  \(sandbox.networkNamespace ?? "-")")
        Console.output("created:    \(sandbox.createdAt)")
        Console.output("expires:    \(sandbox.expiresAt ?? "never")")
        let mode = sandbox.policy.mode.map { ", mode \($0)" } ?? ""
        Console.output("policy:     revision \(sandbox.revision), default \(sandbox.policy.defaultAction)\(mode)")
        for rule in sandbox.policy.egress { Console.output("  \(rule.text)") }
        if let setup = sandbox.policy.setup {
            Console.output("set-up:     until it is locked, or \(setup.expiresAt)")
            for rule in setup.egress { Console.output("  \(rule.text)") }
        }
        if let lockedAt = sandbox.lockedAt { Console.output("locked:     \(lockedAt)") }
    }
}

/// `sandgate attach`: puts a network namespace under a policy.
struct AttachCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "attach",
        abstract: "Have a running daemon put a network namespace under a policy.",
        discussion: """
            Prints the sandbox's id. Without --policy the daemon's default policy applies.

            EXAMPLES:
              sandgate attach --create --policy policy.yaml
              sandgate attach --netns /run/netns/box --policy policy.yaml --id box
              sandgate attach --container web --policy policy.yaml
            """
    )

    @OptionGroup var options: DaemonOptions

    @Option(help: ArgumentHelp("The sandbox's name (default: chosen by the daemon).", valueName: "id"))
    var id: String?

    @Option(help: ArgumentHelp("The policy: a networkPolicy in YAML or JSON.", valueName: "file"))
    var policy: String?

    @Flag(help: "A namespace that the daemon makes.")
    var create = false

    @Option(help: ArgumentHelp("The namespace at this path.", valueName: "path"))
    var netns: String?

    @Option(help: ArgumentHelp("The namespace of this process.", valueName: "pid"))
    var pid: Int32?

    @Option(help: ArgumentHelp("The namespace of this container.", valueName: "id"))
    var container: String?

    @Option(help: ArgumentHelp("Its time in seconds (default: no end).", valueName: "seconds"))
    var timeout: Int?

    @Option(
        parsing: .singleValue,
        help: ArgumentHelp(
            "Let connections from outside in on this TCP port (default: all of a network that exists); none for no port.",
            valueName: "port"
        )
    )
    var inbound: [String] = []

    @Flag(help: "Hold connections to names that no rule speaks of, and have somebody asked, over the API.")
    var ask = false

    @Option(help: ArgumentHelp("How long a question waits for its answer, in seconds.", valueName: "seconds"))
    var askTimeout: Int?

    @Flag(help: "Accept that processes with CAP_NET_RAW or CAP_NET_ADMIN there could get around the rules.")
    var acceptRawSockets = false

    @Flag(help: "Accept filters, routes and rules that are there already and could take packets past the rules.")
    var acceptSidePaths = false

    @Flag(help: "Connect from that network, not from the node's: servers see the sandbox's own address.")
    var upstreamInside = false

    @Option(
        parsing: .singleValue,
        help: ArgumentHelp(
            "With --upstream-inside, a DNS server to ask from there (default: the daemon's).",
            valueName: "ip[:port]"
        )
    )
    var nameserver: [String] = []

    @Flag(help: "With --upstream-inside, ask Docker's resolver in a user-defined network for names of one label.")
    var dockerNames = false

    @Option(
        parsing: .singleValue,
        help: ArgumentHelp("With --docker-names, also for this name and all below it.", valueName: "name")
    )
    var dockerDomain: [String] = []

    func validate() throws {
        let stated = [create, netns != nil, pid != nil, container != nil].count { $0 }
        guard stated == 1 else {
            throw ValidationError("expected one of --create, --netns, --pid and --container")
        }
        try AskOption.validate(ask: ask, timeout: askTimeout)
    }

    func run() throws {
        var attachment: [String: any Encodable & Sendable] = [:]
        if create { attachment["create"] = true }
        if let netns { attachment["netns"] = netns }
        if let pid { attachment["pid"] = pid }
        if let container { attachment["container"] = container }
        if !inbound.isEmpty {
            attachment["inbound"] = inbound == ["none"] || inbound == ["all"] ? inbound[0] : inbound
        }
        if acceptRawSockets { attachment["acceptRawSockets"] = true }
        if acceptSidePaths { attachment["acceptSidePaths"] = true }
        if upstreamInside { attachment["upstreamInside"] = true }
        if !nameserver.isEmpty { attachment["nameservers"] = nameserver }
        if dockerNames { attachment["dockerNames"] = true }
        if !dockerDomain.isEmpty { attachment["dockerDomains"] = dockerDomain }
        if ask {
            if let askTimeout { attachment["ask"] = askTimeout } else { attachment["ask"] = true }
        }
        let body = AttachBody(
            id: id,
            networkPolicy: try policy.map { try PolicyFile.load($0) }?.policy,
            timeout: timeout,
            attachment: attachment
        )
        let answer = try options.client.ask("POST", "/v1/sandboxes", body: Array(try JSONEncoder().encode(body)))
        guard !options.json else { return Console.output(String(decoding: answer, as: UTF8.self)) }
        Console.output(try JSONDecoder().decode(SandboxSummary.self, from: answer).id)
    }
}

/// `sandgate lock ID`: ends a sandbox's set-up phase.
struct LockCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "lock",
        abstract: "Have a running daemon end a sandbox's set-up phase: from then on only its policy's own rules hold.",
        discussion: """
            When it returns, everything has ended that only networkPolicy.setup allowed: connections, datagram flows, \
            answers, pins. It stays so, whatever happens to the daemon; asking again changes nothing.

            EXAMPLES:
              sandgate lock box
            """
    )

    @OptionGroup var options: DaemonOptions

    @Argument(help: "The sandbox.")
    var id: String

    func run() throws {
        let answer = try options.client.ask("POST", "/v1/sandboxes/\(try SandboxPath.component(id))/lock")
        if options.json { Console.output(String(decoding: answer, as: UTF8.self)) }
    }
}

/// `sandgate retry ID`: tries again what has failed.
struct RetryCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "retry",
        abstract: "Have a running daemon try again to put a failed sandbox under enforcement.",
        discussion: """
            A sandbox fails, and reaches nothing, when somebody else changes the nftables rules in its network, as \
            Docker does in user-defined networks when it is restarted. Look at them first (nsenter --net=… nft list \
            ruleset); they are taken as they are. Nothing leaves until the sandbox was tried from inside.

            EXAMPLES:
              sandgate inspect box    # what happened, and where its network is
              sandgate retry box
            """
    )

    @OptionGroup var options: DaemonOptions

    @Argument(help: "The sandbox.")
    var id: String

    func run() throws {
        let answer = try options.client.ask("POST", "/v1/sandboxes/\(try SandboxPath.component(id))/retry")
        if options.json { Console.output(String(decoding: answer, as: UTF8.self)) }
    }
}

/// `sandgate detach ID`: releases a sandbox.
struct DetachCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "detach",
        abstract: "Have a running daemon release a sandbox: its rules go, nothing is enforced there any more.",
        discussion: """
            EXAMPLES:
              sandgate detach box
            """
    )

    @OptionGroup var options: DaemonOptions

    @Argument(help: "The sandbox; one that is unknown is released already.")
    var id: String

    func run() throws {
        _ = try options.client.ask("DELETE", "/v1/sandboxes/\(try SandboxPath.component(id))")
    }
}
