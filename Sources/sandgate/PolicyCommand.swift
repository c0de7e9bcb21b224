import ArgumentParser

/// `sandgate policy`: work with policy files, without a sandbox.
struct PolicyCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "policy",
        abstract: "Validate policies and ask what they decide.",
        discussion: """
            EXAMPLES:
              sandgate policy check policy.yaml
              sandgate policy lint policy.yaml
              sandgate policy fmt policy.yaml
              sandgate policy explain policy.yaml --host api.github.com
              sandgate policy test policy.yaml
              sandgate policy diff old.yaml new.yaml
              sandgate policy presets github
              sandgate policy detect pip npm
              sandgate policy suggest --audit audit.jsonl
              sandgate policy import smokescreen acl.yaml > policy.yaml
              sandgate policy export opensandbox policy.yaml
            """,
        subcommands: [
            PolicyCheckCommand.self, PolicyExplainCommand.self, PolicyTestCommand.self, PolicyPresetsCommand.self,
            PolicyDetectCommand.self, PolicyDiffCommand.self, PolicySuggestCommand.self, PolicyImportCommand.self,
            PolicyExportCommand.self, PolicyLintCommand.self, PolicyFormatCommand.self,
        ]
    )
}
