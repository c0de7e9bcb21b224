import EgressPolicy

/// Asks pip: `pip config debug` says what is configured and where, `pip install --help` says what it uses by default.
struct PipDetector {
    let system: any ToolSystem
    let program: [String]

    private static let commands = ["install", "download", "wheel", "global"]
    /// From the least to the most important.
    private static let levels = ["global", "user", "site", "env", "env_var"]

    private struct Setting {
        let value: String
        let origin: String
    }

    func detect() throws(DetectionError) -> Detection {
        try system.require(program[0])
        // Not in the project: `python -m pip` would execute a pip that lies there.
        let settings = parse(try system.output(of: program + ["config", "debug"], inProject: false))
        var detection = Detection()
        let noIndex =
            effective("no-index", settings).first.map { ["1", "true", "yes", "on"].contains($0.value) } ?? false
        if !noIndex {
            let indexes = effective("index-url", settings)
            for index in indexes { detection.add(url: index.value, source: "pip: index-url of \(index.origin)") }
            if indexes.isEmpty { try addDefault(to: &detection) }
            for extra in effective("extra-index-url", settings) {
                for url in words(extra.value) {
                    detection.add(url: url, source: "pip: extra-index-url of \(extra.origin)")
                }
            }
        }
        for links in effective("find-links", settings) {
            for url in words(links.value) where url.contains("://") {
                detection.add(url: url, source: "pip: find-links of \(links.origin)")
            }
        }
        if !effective("proxy", settings).isEmpty {
            detection.note("pip: is configured to use a proxy, which is not in the sandbox")
        }
        for (index, files) in knownFileHosts() {
            for host in detection.hosts where host.target.description == index {
                detection.add(url: "https://\(files)/", source: "pip: where \(index) keeps its files")
            }
        }
        return detection
    }

    /// Which hosts keep the files of which indexes, as pip itself has it in its code. The pages of an index name the
    /// host of each file, so pip needs no setting for it, and has none.
    ///
    ///     PyPI = PackageIndex("https://INDEX/", file_storage_domain="FILES")
    private func knownFileHosts() -> [(index: String, files: String)] {
        guard let version = try? system.output(of: program + ["--version"], inProject: false),
            let start = version.firstRange(of: " from ")?.upperBound,
            let end = version.firstRange(of: " (python")?.lowerBound, start < end,
            let code = system.contents(of: version[start..<end] + "/_internal/models/index.py")
        else { return [] }
        return code.split(separator: "PackageIndex(").dropFirst().compactMap { call in
            let texts = call.prefix { $0 != ")" }.split(separator: "\"", omittingEmptySubsequences: false)
            guard texts.count >= 4, texts[2].hasSuffix("file_storage_domain=") else { return nil }
            let index = texts[1].split(separator: "/").dropFirst().first
            return index.map { (String($0), String(texts[3])) }
        }
    }

    private func addDefault(to detection: inout Detection) throws(DetectionError) {
        let help = try system.output(of: program + ["install", "--help"], inProject: false)
        let text = words(help).joined(separator: " ")
        let pieces = text.split(separator: "--index-url <url>", maxSplits: 1)
        guard pieces.count == 2, let start = pieces[1].firstRange(of: "(default ")?.upperBound else {
            throw .failed(command: program.joined(separator: " "), cause: "its help names no default for --index-url")
        }
        let url = pieces[1][start...].prefix { $0 != ")" }
        detection.add(url: String(url), source: "pip: the default of --index-url")
    }

    /// The values in force for some command: the environment's, else those of the sections.
    private func effective(_ key: String, _ settings: [String: Setting]) -> [Setting] {
        if let set = settings[":env:.\(key)"] { return [set] }
        return Self.commands.compactMap { settings["\($0).\(key)"] }
    }

    /// The settings by `section.key`, the most important level of each.
    ///
    ///     env_var:
    ///       PIP_INDEX_URL='https://…'
    ///     global:
    ///       /etc/pip.conf, exists: True
    ///         global.index-url: https://…
    ///         global.extra-index-url: https://…
    ///         https://…                             (a value's further lines)
    private func parse(_ output: String) -> [String: Setting] {
        var found: [String: [String: Setting]] = [:]
        var level = ""
        var file = ""
        var last: String?
        for line in output.split(separator: "\n") {
            let text = line.drop { $0 == " " }
            if text.startIndex == line.startIndex, text.hasSuffix(":") {
                (level, file, last) = (String(text.dropLast()), "", nil)
            } else if level == "env_var", let equals = text.firstIndex(of: "="), text.hasPrefix("PIP_") {
                let name = text[..<equals].dropFirst("PIP_".count).lowercased().replacing("_", with: "-")
                let value = text[text.index(after: equals)...].trimming("'\"").replacing("\\n", with: "\n")
                found[level, default: [:]][":env:.\(name)"] = Setting(
                    value: value,
                    origin: "the variable \(text[..<equals])"
                )
            } else if let exists = text.firstRange(of: ", exists: ") {
                (file, last) = (String(text[..<exists.lowerBound]), nil)
            } else if let colon = text.firstRange(of: ": "), isKey(text[..<colon.lowerBound]) {
                last = String(text[..<colon.lowerBound])
                found[level, default: [:]][last ?? ""] = Setting(value: String(text[colon.upperBound...]), origin: file)
            } else if let last, let setting = found[level]?[last] {
                found[level]?[last] = Setting(value: setting.value + "\n" + text, origin: setting.origin)
            }
        }
        return Self.levels.reduce(into: [:]) { merged, level in
            merged.merge(found[level] ?? [:]) { $1 }
        }
    }

    private func isKey(_ text: Substring) -> Bool {
        text.contains(".") && text.utf8.allSatisfy { $0 > 0x20 && $0 != UInt8(ascii: "/") && $0 < 0x7f }
    }
}
