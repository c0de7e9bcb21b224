/// Asks npm: `npm config list` says what is configured and where, `npm config get registry` what it uses by default.
struct NPMDetector {
    let system: any ToolSystem
    let settings: NamedSettings

    func detect() throws(DetectionError) -> Detection {
        try system.require("npm")
        var detection = Detection()
        var options: [String] = []
        for option in ["--userconfig", "--globalconfig"] {
            guard let file = NamedFile(of: [option], in: settings, on: system) else { continue }
            if let path = file.path {
                options.append("\(option)=\(path)")
            } else {
                detection.note(NamedSettings.note(ofUnread: option, of: .npm))
            }
        }
        var hasRegistry = false
        var origin = "its configuration"
        for line in try system.output(of: ["npm", "config", "list"] + options, inProject: true).split(separator: "\n") {
            // ; "user" config from /home/you/.npmrc
            if line.hasPrefix(";") {
                if let from = line.firstRange(of: " config from ") { origin = String(line[from.upperBound...]) }
                continue
            }
            guard let equals = line.firstRange(of: " = ") else { continue }
            let key = line[..<equals.lowerBound]
            let value = line[equals.upperBound...].trimming("\"")
            if key == "registry" {
                hasRegistry = true
                detection.add(url: value, source: "npm: registry of \(origin)")
            } else if key.hasPrefix("@"), key.hasSuffix(":registry") {
                detection.add(url: value, source: "npm: \(key) of \(origin)")
            } else if key == "proxy" || key == "https-proxy", value != "null" {
                detection.note("npm: is configured to use a proxy, which is not in the sandbox")
            }
        }
        if !hasRegistry {
            let registry = try system.output(of: ["npm", "config", "get", "registry"] + options, inProject: true)
            detection.add(url: registry.trimming(" \n"), source: "npm: the default registry")
        }
        return detection
    }
}
