import ArgumentParser
import EgressPolicy
import FoundationEssentials
import PolicyDocument
import Reactor

/// `sandgate policy diff`: what another policy would change for those who live under it.
struct PolicyDiffCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "diff",
        abstract: "Say what becomes reachable and what stops being reachable from one policy to another.",
        usage: "sandgate policy diff OLD NEW [--json]",
        discussion: """
            Policies are compared by what they decide, not by their lines: rules that moved without effect are no \
            difference. Lines that begin with + become reachable, those with - stop being so.

            The exit status is 0, whether there is a difference or not, and 1 when a policy is not valid.
            """
    )

    @Argument(help: ArgumentHelp("The policy that is in force; - is standard input.", valueName: "old"))
    var old: String

    @Argument(help: ArgumentHelp("The policy that is to be.", valueName: "new"))
    var new: String

    @Flag(help: "Print one JSON object.")
    var json = false

    private struct Document: Encodable {
        let opened: [String]
        let closed: [String]
    }

    func run() throws {
        let policies = try [old, new].map { CompiledPolicy(try PolicyFile.load($0).policy) }
        let difference = PolicyDifference(from: policies[0], to: policies[1], at: .current)
        let opened = difference.opened.map(\.description)
        let closed = difference.closed.map(\.description)
        guard json else {
            for line in opened.map({ "+ \($0)" }) + closed.map({ "- \($0)" }) { Console.output(line) }
            return
        }
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
        Console.output(String(decoding: try encoder.encode(Document(opened: opened, closed: closed)), as: UTF8.self))
    }
}
