/// A policy that comes with the program: `policies/NAME.yaml`, byte for byte.
public struct Preset: Hashable, Sendable {
    /// What it is called, which is the name of its file.
    public let name: String
    /// The document, in YAML.
    public let document: [UInt8]

    /// Every preset, by name.
    public static let all = [
        Preset(name: "claude-code", document: PackageResources.claude_code_yaml),
        Preset(name: "codex", document: PackageResources.codex_yaml),
        Preset(name: "deny-all", document: PackageResources.deny_all_yaml),
        Preset(name: "gemini-cli", document: PackageResources.gemini_cli_yaml),
        Preset(name: "github", document: PackageResources.github_yaml),
        Preset(name: "hugging-face", document: PackageResources.hugging_face_yaml),
        Preset(name: "langgraph", document: PackageResources.langgraph_yaml),
        Preset(name: "node-install", document: PackageResources.node_install_yaml),
        Preset(name: "qwen-code", document: PackageResources.qwen_code_yaml),
    ]

    /// The preset of that name.
    public init?(named name: String) {
        guard let found = Self.all.first(where: { $0.name == name }) else { return nil }
        self = found
    }

    private init(name: String, document: [UInt8]) {
        self.name = name
        self.document = document
    }

    /// What it is for: the first line of its leading comment.
    public var summary: String {
        let line = document.prefix { $0 != UInt8(ascii: "\n") }
        return String(decoding: line.drop { $0 == UInt8(ascii: "#") || $0 == UInt8(ascii: " ") }, as: UTF8.self)
    }
}
