import EgressPolicy

/// Asks gem: `gem sources --list`. Bundler's sources stand in the project's Gemfile.
struct GemDetector {
    let system: any ToolSystem
    let settings: NamedSettings

    /// This source has its index at another host, where Bundler goes by itself.
    private static let defaultSource = "rubygems.org"
    private static let defaultIndex = "https://index.rubygems.org/"

    func detect() throws(DetectionError) -> Detection {
        try system.require("gem")
        var detection = Detection()
        for line in try system.output(of: ["gem", "sources", "--list"], inProject: false).split(separator: "\n")
        where line.contains("://") {
            detection.add(url: line.trimming(" \r"), source: "gem: sources")
        }
        if settings.names("--config-file") {
            detection.note("gem: the file of --config-file was not asked for: allow with --allow what it adds")
        }
        if let path = system.projectPath("Gemfile"), let gemfile = system.contents(of: path) {
            for line in gemfile.split(separator: "\n").map({ $0.trimming(" \t\r") }) where line.hasPrefix("source") {
                guard let quote = line.first(where: { $0 == "\"" || $0 == "'" }) else { continue }
                let parts = line.split(separator: quote, omittingEmptySubsequences: false)
                if parts.count >= 3 { detection.add(url: String(parts[1]), source: "gem: source of \(path)") }
            }
        }
        for host in detection.hosts where host.target.description == Self.defaultSource {
            detection.add(url: Self.defaultIndex, source: "gem: where \(Self.defaultSource) keeps its index")
        }
        return detection
    }
}
