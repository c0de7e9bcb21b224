/// Asks git: the project's remotes, with `insteadOf` applied, and its submodules.
struct GitDetector {
    let system: any ToolSystem
    let settings: NamedSettings

    func detect() throws(DetectionError) -> Detection {
        try system.require("git")
        var detection = Detection()
        // A section's name, a dot, a key: `commit -c` names a commit.
        if settings.values(of: "-c").contains(where: { $0.prefix { $0 != "=" }.contains(".") && $0.contains("=") }) {
            detection.note("git: what -c says was not asked for: allow with --allow what it leads to")
        }
        guard let directory = system.projectDirectory else { return detection }
        // Fails outside of a repository.
        guard let remotes = try? system.output(of: ["git", "remote", "--verbose"], inProject: true) else {
            detection.note("git: \(directory) is no repository, so there are no remotes")
            return detection
        }
        // origin<TAB>https://…<SPACE>(fetch)
        for line in remotes.split(separator: "\n") {
            let fields = line.split(separator: "\t", maxSplits: 1)
            guard fields.count == 2, let space = fields[1].lastIndex(of: " ") else { continue }
            add(String(fields[1][..<space]), source: "git: the remote \(fields[0])", to: &detection)
        }
        let ask = ["git", "config", "--file", ".gitmodules", "--get-regexp", "^submodule\\..*\\.url$"]
        if let modules = try? system.output(of: ask, inProject: true) {
            for line in modules.split(separator: "\n") {
                guard let space = line.firstIndex(of: " ") else { continue }
                let url = try effectiveURL(of: String(line[line.index(after: space)...]))
                add(url, source: "git: a submodule", to: &detection)
            }
        }
        return detection
    }

    /// What git makes of a URL by its configuration; it asks nobody for that.
    func effectiveURL(of url: String) throws(DetectionError) -> String {
        guard !url.hasPrefix("-"), url.contains(":") else { return url }
        return try system.output(of: ["git", "ls-remote", "--get-url", "--", url], inProject: true).trimming("\n")
    }

    private func add(_ url: String, source: String, to detection: inout Detection) {
        switch URLAuthority.parse(remote: url) {
        case .host(let authority): detection.add(authority.target, port: authority.port, source: source)
        case .local: break
        case .unknown: detection.note("\(source): not understood, so not allowed")
        }
    }
}
