import ArgumentParser
import Audit
import FoundationEssentials
import HostDetection

/// `sandgate policy detect`: the hosts that tools are configured to use, as rules.
struct PolicyDetectCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "detect",
        abstract: "Ask tools which hosts they are configured to use, and print the rules that allow them.",
        usage: "sandgate policy detect TOOL… [--json]",
        discussion: """
            Mirrors, private registries and their ports included. Every rule has a comment that says where it comes \
            from; user names and passwords are never printed. Knows pip, npm, cargo, go, maven, gem, apt and git.

            What lies in the working directory counts, too: .npmrc, .cargo/config.toml, pom.xml, Gemfile, git's \
            remotes. So read the rules before you use them where that is not your own. \
            `sandgate run --detect` leaves the working directory out.

            The exit status is 1 when a tool is not installed or cannot be asked.

            EXAMPLES:
              sandgate policy detect pip npm > policy.yaml
              sandgate run --policy policy.yaml -- pip install requests
            """
    )

    @Argument(help: ArgumentHelp("Tools to ask.", valueName: "tool"))
    var tools: [String]

    @Flag(help: "Print one JSON object.")
    var json = false

    func run() throws {
        let system = LocalSystem(countsProject: true)
        var detection = Detection()
        for name in tools {
            guard let tool = Tool(named: name) else { throw DetectionError.unknown(name) }
            detection.merge(try tool.detect(on: system))
        }
        if json {
            let encoder = JSONEncoder()
            encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
            Console.output(String(decoding: try encoder.encode(Document(detection)), as: UTF8.self))
        } else {
            Console.output(DetectedPolicy(detection: detection).lines.joined(separator: "\n"))
        }
    }

    /// The members that `--json` prints.
    private struct Document: Encodable {
        struct Host: Encodable {
            let target: String
            let port: UInt16
            let sources: [String]
        }

        let hosts: [Host]
        let notes: [String]

        init(_ detection: Detection) {
            hosts = detection.hosts.map { Host(target: "\($0.target)", port: $0.port, sources: $0.sources) }
            notes = detection.notes
        }
    }
}

/// What was detected, as a policy that a person reads.
struct DetectedPolicy {
    let detection: Detection

    /// The lines of a YAML document.
    var lines: [String] {
        var lines = ["networkPolicy:", "  defaultAction: deny"]
        if detection.hosts.isEmpty {
            lines.append("  egress: []")
        } else {
            lines.append("  egress:")
        }
        for host in detection.hosts {
            lines += host.sources.map { "    # \(comment($0))" }
            lines.append("    - {action: allow, target: \"\(host.target)\", ports: [\(host.port)], protocol: tcp}")
        }
        return lines + detection.notes.map { "# \(comment($0))" }
    }

    /// Names of files and remotes may hold anything; a comment is one line, for YAML, which knows more ends of lines than one, and for a
    /// terminal.
    private func comment(_ text: String) -> String { Printable.text(text, limit: .max) }
}
