/// Reads cargo's configuration: cargo has no command that reports it. The files, their order, source replacement and the
/// defaults are those of The Cargo Book ("Configuration", "Source Replacement", "Registries").
struct CargoDetector {
    let system: any ToolSystem

    /// The default registry: its index, and where the index says that crates are.
    private static let index = "https://index.crates.io/"
    private static let files = "https://static.crates.io/"
    private static let defaultSource = "crates-io"
    private static let maximumReplacements = 10

    private typealias Setting = (value: String, origin: String)

    func detect() throws(DetectionError) -> Detection {
        try system.require("cargo")
        let settings = readSettings()
        var detection = Detection()
        addSource(Self.defaultSource, settings, to: &detection)
        // Registries that a project may name as the source of a dependency.
        for (key, setting) in settings.sorted(by: { $0.key < $1.key }) {
            let parts = key.split(separator: ".").map(String.init)
            guard parts.count == 3, parts[0] == "registries", parts[2] == "index" else { continue }
            detection.add(url: setting.value, source: "cargo: registries.\(parts[1]) of \(setting.origin)")
        }
        for host in detection.hosts { addDownloads(of: host, to: &detection) }
        return detection
    }

    /// Follows `replace-with` from a source to the one that is used.
    private func addSource(_ first: String, _ settings: [String: Setting], to detection: inout Detection) {
        var name = first
        for _ in 0..<Self.maximumReplacements {
            guard let replacement = settings["source.\(name).replace-with"] else { break }
            name = replacement.value
        }
        for kind in ["directory", "local-registry"] where settings["source.\(name).\(kind)"] != nil { return }
        for key in ["source.\(name).registry", "source.\(name).git", "registries.\(name).index"] {
            guard let setting = settings[key] else { continue }
            detection.add(url: setting.value, source: "cargo: \(key) of \(setting.origin)")
            return
        }
        guard name == Self.defaultSource else {
            detection.note("cargo: the source \(name) is not defined")
            return
        }
        detection.add(url: Self.index, source: "cargo: the index of crates.io, its default")
        detection.add(url: Self.files, source: "cargo: the crates of crates.io, its default")
    }

    /// An index says where its crates are; a copy of what it said lies in cargo's home.
    private func addDownloads(of host: DetectedHost, to detection: inout Detection) {
        let indexes = "\(cargoHome)/registry/index"
        for name in system.names(in: indexes) where name.hasPrefix("\(host.target)-") {
            guard let text = system.contents(of: "\(indexes)/\(name)/config.json"),
                let key = text.firstRange(of: "\"dl\""),
                let open = text[key.upperBound...].firstIndex(of: "\"")
            else { continue }
            let url = text[text.index(after: open)...].prefix { $0 != "\"" }
            detection.add(url: String(url), source: "cargo: the crates of \(host.target)")
        }
    }

    private var cargoHome: String { system.variable("CARGO_HOME") ?? "\(system.home)/.cargo" }

    /// The settings, the most important file's first: environment, project, its parents, cargo's home.
    private func readSettings() -> [String: Setting] {
        var settings: [String: Setting] = [:]
        for directory in directories() {
            for name in ["config", "config.toml"] {
                let path = "\(directory)/\(name)"
                guard let text = system.contents(of: path) else { continue }
                for (key, value) in SimpleTOML.strings(in: text) where settings[key] == nil {
                    settings[key] = (value, path)
                }
                break
            }
        }
        for key in settings.keys where key.hasPrefix("registries.") && key.hasSuffix(".index") {
            let variable = "CARGO_" + key.uppercased().replacing(".", with: "_").replacing("-", with: "_")
            if let value = system.variable(variable) { settings[key] = (value, "the variable \(variable)") }
        }
        return settings
    }

    private func directories() -> [String] {
        var directories: [String] = []
        if var directory = system.projectDirectory {
            while true {
                directories.append(directory == "/" ? "/.cargo" : "\(directory)/.cargo")
                guard directory != "/", let slash = directory.lastIndex(of: "/") else { break }
                directory = slash == directory.startIndex ? "/" : String(directory[..<slash])
            }
        }
        if !directories.contains(cargoHome) { directories.append(cargoHome) }
        return directories
    }
}
