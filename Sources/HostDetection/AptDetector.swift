/// Asks apt: `apt-get update --print-uris` says what an update would fetch, from all of its sources, and fetches nothing.
struct AptDetector {
    let system: any ToolSystem

    func detect() throws(DetectionError) -> Detection {
        try system.require("apt-get")
        var detection = Detection()
        for line in try system.output(of: ["apt-get", "update", "--print-uris"], inProject: false).split(
            separator: "\n"
        )
        where line.hasPrefix("'") {
            let url = line.dropFirst().prefix { $0 != "'" }
            detection.add(url: String(url), source: "apt: its sources")
            if url.hasPrefix("mirror") {
                detection.note("apt: a source is a list of mirrors, which are not listed here")
            }
        }
        if let proxies = try? system.output(of: ["apt-config", "dump", "Acquire::http::Proxy"], inProject: false),
            proxies.contains("://")
        {
            detection.note("apt: is configured to use a proxy, which is not in the sandbox")
        }
        return detection
    }
}
