import ArgumentParser
import FoundationEssentials
import NetPrimitives

/// `sandgate allow ID TARGET[:PORT]`: the one rule that lets a sandbox go where it was refused.
struct AllowCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "allow",
        abstract: "Have a running daemon let a sandbox go to one name or address, on one port.",
        discussion: """
            Adds the narrowest rule, where it has to stand: behind all others, or right before the one that refuses. \
            Prints the rule. Where no rule would help or should (guarded addresses, an operator's rule), it says so and \
            changes nothing. The page that the daemon serves does the same with a button.

            EXAMPLES:
              sandgate allow box api.example.com
              sandgate allow box 203.0.113.9:22
              sandgate allow box time.example.com:123 --protocol udp
            """
    )

    @OptionGroup var options: DaemonOptions

    @Argument(help: "The sandbox.")
    var id: String

    @Argument(help: ArgumentHelp("A name or address; IPv6 with a port is [ADDR]:PORT. Port 443 unless one is given."))
    var target: String

    @Option(name: .customLong("protocol"), help: ArgumentHelp("tcp or udp.", valueName: "name"))
    var transport = "tcp"

    @Option(
        help: ArgumentHelp("The address at which the name was refused; matters where a rule refuses addresses.")
    )
    var ip: String?

    private struct Question: Encodable {
        let sandbox: String
        var host: String?
        var ip: String?
        let port: UInt16
        let `protocol`: String
    }

    private struct Suggestion: Decodable {
        /// The rule goes back as it came.
        struct Rule: Codable {
            let action: String
            let target: String
            let ports: [UInt16]?
            let `protocol`: String?
        }

        let revision: UInt64
        let rule: Rule?
        let line: String?
        let before: Int?
        let advice: String?
    }

    private struct Changed: Decodable {
        let revision: UInt64
    }

    func validate() throws {
        guard ["tcp", "udp"].contains(transport) else { throw ValidationError("--protocol: expected tcp or udp") }
        _ = try question()
    }

    private func question() throws -> Question {
        let (place, ports) = try PolicyAssembly.split(target, option: "allow")
        guard let port = (ports.isEmpty ? PortRange(443) : ports[0]), port.lower == port.upper else {
            throw ValidationError("\(target): expected one port")
        }
        var question = Question(
            sandbox: try SandboxPath.component(id),
            host: place,
            ip: ip,
            port: port.lower,
            protocol: transport
        )
        if let address = IPAddress(place) {
            guard ip == nil else { throw ValidationError("\(target) is an address: --ip has nothing to add") }
            (question.host, question.ip) = (nil, "\(address)")
        } else if (try? DomainName(place)) == nil {
            throw ValidationError(
                "\(target): expected one name or address; wildcards and blocks are for a policy, which PUT replaces"
            )
        }
        return question
    }

    func run() throws {
        let client = options.client
        let asked = try client.ask(
            "POST",
            "/v1/policies/suggest",
            body: Array(try JSONEncoder().encode(try question()))
        )
        let suggestion = try JSONDecoder().decode(Suggestion.self, from: asked)
        if let advice = suggestion.advice { throw SetupError("\(target): \(advice)") }
        guard let rule = suggestion.rule, let before = suggestion.before, let line = suggestion.line else {
            return Console.output(
                options.json ? String(decoding: asked, as: UTF8.self) : "\(target) is allowed already"
            )
        }
        let answer = try client.ask(
            "PATCH",
            "/v1/sandboxes/\(try SandboxPath.component(id))/policy?before=\(before)",
            headers: ["If-Match": "\"\(suggestion.revision)\""],
            body: Array(try JSONEncoder().encode([rule]))
        )
        guard !options.json else { return Console.output(String(decoding: answer, as: UTF8.self)) }
        let changed = try JSONDecoder().decode(Changed.self, from: answer)
        Console.output("\(line)  # in force, revision \(changed.revision)")
    }
}
