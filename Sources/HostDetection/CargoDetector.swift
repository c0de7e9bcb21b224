/// Reads cargo's configuration: cargo has no command that reports it. The files, their order, source replacement and the
/// defaults are those of The Cargo Book ("Configuration", "Source Replacement", "Registries").
struct CargoDetector {
    let system: any ToolSystem
    let settings: NamedSettings

    /// The default registry: its index over HTTP, the same as a git repository, and where both say that crates are.
    private static let index = "https://index.crates.io/"
    private static let gitIndex = "https://github.com/rust-lang/crates.io-index"
    private static let files = "https://static.crates.io/"
    private static let defaultSource = "crates-io"
    private static let maximumReplacements = 10

    func detect() throws(DetectionError) -> Detection {
        try system.require("cargo")
        var detection = Detection()
        let configuration = readConfiguration(&detection)
        addSource(Self.defaultSource, configuration, to: &detection)
        // Registries that a project may name as the source of a dependency.
        for registry in configuration.registries {
            guard let setting = configuration["registries.\(registry).index"] else { continue }
            detection.add(url: setting.value, source: "cargo: registries.\(registry) of \(setting.origin)")
        }
        for host in detection.hosts { addDownloads(of: host, to: &detection) }
        return detection
    }

    /// Follows `replace-with` from a source to the one that is used.
    private func addSource(_ first: String, _ configuration: Configuration, to detection: inout Detection) {
        var name = first
        for _ in 0..<Self.maximumReplacements {
            guard let replacement = configuration["source.\(name).replace-with"] else { break }
            name = replacement.value
        }
        for kind in ["directory", "local-registry"] where configuration["source.\(name).\(kind)"] != nil { return }
        for key in ["source.\(name).registry", "source.\(name).git", "registries.\(name).index"] {
            guard let setting = configuration[key] else { continue }
            detection.add(url: setting.value, source: "cargo: \(key) of \(setting.origin)")
            return
        }
        guard name == Self.defaultSource else {
            detection.note("cargo: the source \(name) is not defined")
            return
        }
        let key = "registries.\(name).protocol"
        if let setting = configuration[key], setting.value == "git" {
            detection.add(url: Self.gitIndex, source: "cargo: the index of crates.io, for \(key) of \(setting.origin)")
        } else {
            detection.add(url: Self.index, source: "cargo: the index of crates.io, its default")
        }
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
}

extension CargoDetector {
    private typealias Setting = (value: String, origin: String)

    /// What cargo is told, the most important first: the command line, variables, files.
    private struct Configuration {
        let system: any ToolSystem
        var commandLine: [String: Setting] = [:]
        var files: [String: Setting] = [:]

        /// The setting in force. Of sources, no variable tells.
        subscript(key: String) -> Setting? {
            if let setting = commandLine[key] { return setting }
            if key.hasPrefix("registries.") {
                let variable = Self.variable(for: key)
                if let value = system.variable(variable) { return (value, "the variable \(variable)") }
            }
            return files[key]
        }

        /// `CARGO_REGISTRIES_MY_CORP_INDEX` for `registries.my-corp.index`.
        private static func variable(for key: String) -> String {
            "CARGO_" + key.uppercased().replacing(".", with: "_").replacing("-", with: "_")
        }

        /// The names of the registries that have an index. A variable does not say how its registry is written.
        var registries: [String] {
            let (prefix, suffix) = ("registries.", ".index")
            var names = Set(Array(commandLine.keys) + files.keys)
                .filter { $0.hasPrefix(prefix) && $0.hasSuffix(suffix) && $0.count > prefix.count + suffix.count }
                .map { String($0.dropFirst(prefix.count).dropLast(suffix.count)) }
            let known = Set(names.map { Self.variable(for: prefix + $0 + suffix) })
            let (start, end) = ("CARGO_REGISTRIES_", "_INDEX")
            names += system.variableNames
                .filter { $0.hasPrefix(start) && $0.hasSuffix(end) && $0.count > start.count + end.count }
                .filter { !known.contains($0) }
                .map { $0.dropFirst(start.count).dropLast(end.count).lowercased() }
            return names.sorted()
        }

        /// Adds what a text says where nothing said it before.
        static func add(_ text: String, origin: String, to settings: inout [String: Setting]) {
            for (key, value) in SimpleTOML.strings(in: text) where settings[key] == nil {
                settings[key] = (value, origin)
            }
        }
    }

    private func readConfiguration(_ detection: inout Detection) -> Configuration {
        var configuration = Configuration(system: system)
        // A file, or a setting as it would stand in one; the last one counts.
        let option = "--config"
        for value in settings.values(of: option).reversed() {
            if let path = system.outsidePath(value), let text = system.contents(of: path) {
                Configuration.add(text, origin: path, to: &configuration.commandLine)
            } else if value.contains("=") {
                Configuration.add(value, origin: "the command line", to: &configuration.commandLine)
            } else {
                detection.note(NamedSettings.note(ofUnread: option, of: .cargo))
            }
        }
        // The project's, its parents', cargo's home.
        for directory in directories() {
            for name in ["config", "config.toml"] {
                let path = "\(directory)/\(name)"
                guard let text = system.contents(of: path) else { continue }
                Configuration.add(text, origin: path, to: &configuration.files)
                break
            }
        }
        return configuration
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
