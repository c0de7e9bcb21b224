import ArgumentParser
import FoundationEssentials
import PolicyDocument
import Presets

/// `sandgate policy presets`: the policies that come with the program.
struct PolicyPresetsCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "presets",
        abstract: "List the policies that come with sandgate, or print one.",
        discussion: """
            Use them with `sandgate run --preset NAME`, or print one, and make it your own. Every line has a comment \
            that says why it is there.

            EXAMPLES:
              sandgate policy presets
              sandgate policy presets --json | jq -r '.[].name'
              sandgate policy presets github > policy.yaml
              sandgate run --preset claude-code --preset github -- claude
            """
    )

    @Argument(help: ArgumentHelp("Print this one, in YAML.", valueName: "name"))
    var name: String?

    @Flag(help: "List them as JSON.")
    var json = false

    func validate() throws {
        if json, name != nil { throw ValidationError("--json is for the list: one policy is printed as its YAML") }
    }

    func run() throws {
        var output = StandardOutput()
        if let name {
            try output.line(try Preset.find(name).document.dropLast())
        } else if json {
            let encoder = JSONEncoder()
            encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
            try output.line(try encoder.encode(Preset.all.map { Document(name: $0.name, summary: $0.summary) }))
        } else {
            let width = Preset.all.map(\.name.count).max() ?? 0
            for preset in Preset.all {
                let padding = String(repeating: " ", count: width - preset.name.count)
                try output.line("\(preset.name)\(padding)  \(preset.summary)")
            }
        }
        try output.flush()
    }

    /// The members that `--json` prints of each.
    private struct Document: Encodable {
        let name: String
        let summary: String
    }
}

extension Preset {
    /// The preset of that name; throws what names there are.
    static func find(_ name: String) throws(SetupError) -> Preset {
        guard let preset = Preset(named: name) else {
            let names = Preset.all.map(\.name)
            throw SetupError("no preset \"\(name)\": expected \(Spelling.expectation(of: names, for: name))")
        }
        return preset
    }
}
