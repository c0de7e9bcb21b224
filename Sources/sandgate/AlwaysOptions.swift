import ArgumentParser
import EgressPolicy

/// The operator's rules before a policy, for commands that judge one without a daemon.
struct AlwaysOptions: ParsableArguments {
    @Option(help: ArgumentHelp("Targets, one a line, that stand before every policy and deny.", valueName: "file"))
    var denyAlways: String?

    @Option(help: ArgumentHelp("Targets, one a line, that stand behind those and allow.", valueName: "file"))
    var allowAlways: String?

    /// What stands in the files.
    func rules() throws -> AlwaysRules {
        AlwaysRules(
            deny: try denyAlways.map { try AlwaysFile.load($0, action: .deny) } ?? [],
            allow: try allowAlways.map { try AlwaysFile.load($0, action: .allow) } ?? []
        )
    }
}
