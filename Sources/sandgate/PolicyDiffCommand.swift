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
        usage: "sandgate policy diff OLD NEW [--deny-always FILE] [--allow-always FILE] [--exit-code] [--json]",
        discussion: """
            Policies are compared by what they decide, not by their lines: rules that moved without effect are no \
            difference. Lines that begin with + become reachable, those with - stop being so.

            The operator's rules before every policy (denyAlways and allowAlways of sandgate serve, deny.always and \
            allow.always of the sidecar) count where they are given: then only what they leave to the policy is a \
            difference. With --new-deny-always and --new-allow-always a change of theirs is compared, too.

            Where a policy has a set-up phase, both are compared as they are until the lock and as it leaves them; what \
            differs in one of the two alone says so. Lines that begin with ! are what the new policy's lock takes away: \
            they are no difference.

            The exit status is 0, whether there is a difference or not, and 1 when a policy is not valid. With \
            --exit-code it is 2 when there is a difference.

            EXAMPLES:
              sandgate policy diff old.yaml new.yaml
              git show main:policy.yaml | sandgate policy diff - policy.yaml
              sandgate policy diff p.yaml p.yaml --deny-always old --new-deny-always new
              sandgate policy diff --json old.yaml new.yaml | jq -e '.opened == []'
            """
    )

    @Argument(help: ArgumentHelp("The policy that is in force; - is standard input.", valueName: "old"))
    var old: String

    @Argument(help: ArgumentHelp("The policy that is to be.", valueName: "new"))
    var new: String

    @OptionGroup var alwaysFiles: AlwaysOptions

    @Option(help: ArgumentHelp("What --deny-always is to become; the same if left out.", valueName: "file"))
    var newDenyAlways: String?

    @Option(help: ArgumentHelp("What --allow-always is to become; the same if left out.", valueName: "file"))
    var newAllowAlways: String?

    @Flag(help: "End with exit status 2 when there is a difference.")
    var exitCode = false

    @Flag(help: "Print one JSON object.")
    var json = false

    private static let different = ExitCode(2)

    func run() throws {
        let always = try alwaysFiles.rules()
        var newAlways = always
        if let newDenyAlways { newAlways.deny = try AlwaysFile.load(newDenyAlways, action: .deny) }
        if let newAllowAlways { newAlways.allow = try AlwaysFile.load(newAllowAlways, action: .allow) }
        let before = CompiledPolicy(try PolicyFile.load(old).policy, always: always)
        let after = CompiledPolicy(try PolicyFile.load(new).policy, always: newAlways)
        let difference = PhasedDifference(from: before, to: after, at: .current)
        let document = DifferenceDocument(difference, to: after.policy)
        if json {
            let encoder = JSONEncoder()
            encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
            Console.output(String(decoding: try encoder.encode(document), as: UTF8.self))
        } else {
            for (sign, lines) in [("+", document.opened), ("-", document.closed), ("!", document.stopsAtLock ?? [])] {
                for line in lines { Console.output("\(sign) \(line)") }
            }
        }
        if exitCode, !difference.isEmpty { throw Self.different }
    }
}
