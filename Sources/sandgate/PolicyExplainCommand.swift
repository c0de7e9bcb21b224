import ArgumentParser
import Audit
import EgressPolicy
import FoundationEssentials
import NetPrimitives
import PolicyDocument
import Reactor
import Sandboxes

/// `sandgate policy explain`: what a policy decides about one destination, and why.
struct PolicyExplainCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "explain",
        abstract: "Say what a policy decides about one destination: verdict, rule and reason.",
        usage:
            "sandgate policy explain FILE (--host NAME | --ip ADDRESS) [--port PORT] [--protocol tcp|udp] [--verbose]",
        discussion: """
            The first line of standard output is the verdict alone: allow or deny. The exit status is 0 for both, and \
            1 when the policy is not valid.

            Without --ip, rules about addresses are not judged: which addresses a name has is known only when it is \
            resolved.

            EXAMPLES:
              sandgate policy explain policy.yaml --host api.github.com
              sandgate policy explain policy.yaml --host db.example --ip 10.0.0.7
              sandgate policy explain policy.yaml --ip 169.254.169.254 --port 80
              sandgate policy explain policy.yaml --host example.com | head -n 1
              sandgate policy explain policy.yaml --host example.com --verbose
            """
    )

    @Argument(help: ArgumentHelp("The policy; - is standard input.", valueName: "file"))
    var file: String

    @Option(help: ArgumentHelp("The name that the connection carries, or an address.", valueName: "name"))
    var host: String?

    @Option(help: ArgumentHelp("The address it goes to.", valueName: "address"))
    var ip: String?

    @Option(help: "The port it goes to.")
    var port: UInt16 = 443

    @Option(name: .customLong("protocol"), help: "tcp or udp.")
    var transport: TransportOption = .tcp

    @OptionGroup var alwaysFiles: AlwaysOptions

    @Option(help: ArgumentHelp("Answers for always, which stand behind the policy of whoever asks.", valueName: "file"))
    var answers: String?

    @Flag(name: .shortAndLong, help: "Say of each rule, in order, why it matches or does not.")
    var verbose = false

    @Flag(help: "Print one JSON object.")
    var json = false

    func validate() throws {
        guard host != nil || ip != nil else { throw ValidationError("say what to judge: --host NAME or --ip ADDRESS") }
        guard port > 0 else { throw ValidationError("--port 0: expected 1 to 65535") }
        if let ip, IPAddress(ip) == nil {
            throw ValidationError("--ip \(ip): expected an IPv4 address in four decimal parts, or an IPv6 address")
        }
        if let ip, let host, let literal = IPAddress(host), literal != IPAddress(ip) {
            throw ValidationError("--host \(host) is an address, and another one than --ip \(ip)")
        }
    }

    func run() throws {
        let policy = try PolicyFile.load(file).policy
        var always = try alwaysFiles.rules()
        always.answers = try answers.map { try AnswerFile.rules(at: $0) } ?? []
        let explanation = Explanation(
            of: CompiledPolicy(policy, always: always),
            host: host,
            address: ip.flatMap { IPAddress($0) },
            port: port,
            transport: transport.transport,
            at: .current,
            isVerbose: verbose
        )
        if json {
            let encoder = JSONEncoder()
            encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
            Console.output(String(decoding: try encoder.encode(explanation.document), as: UTF8.self))
        } else {
            Console.output(explanation.lines.joined(separator: "\n"))
        }
    }
}

/// The values of `--protocol`.
enum TransportOption: String, ExpressibleByArgument, CaseIterable {
    case tcp
    case udp

    var transport: TransportProtocol { self == .tcp ? .tcp : .udp }
}
