/// Asks apt: `apt-get update --print-uris` says what an update would fetch, from all of its sources, and fetches nothing.
struct AptDetector {
    let system: any ToolSystem
    let settings: NamedSettings

    func detect() throws(DetectionError) -> Detection {
        try system.require("apt-get")
        var detection = Detection()
        let answer = try system.answer(of: ["apt-get", "update", "--print-uris"], inProject: false)
        let lines = answer.output.split(separator: "\n").filter { $0.hasPrefix("'") }
        if let failure = answer.failure {
            // A source that it cannot fetch from, for want of a driver say, is not one the others have to suffer for.
            guard !lines.isEmpty else { throw failure }
            detection.note("apt: a source cannot be used, so it is not listed (\(failure))")
        }
        for line in lines {
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
        for option in ["-c", "--config-file", "-o", "--option"] where settings.names(option) {
            detection.note("apt: what \(option) says was not asked for: allow with --allow what it adds")
        }
        return detection
    }
}
