/// Reads Maven's configuration: its own way to report it needs a plugin that would have to be downloaded. The user's and
/// the installation's settings.xml count, and the project's pom.xml.
struct MavenDetector {
    let system: any ToolSystem
    let settings: NamedSettings

    func detect() throws(DetectionError) -> Detection {
        guard let program = system.path(ofProgram: "mvn") else { throw .missing("mvn") }
        var detection = Detection()
        let files = settingsFiles(program: program, &detection)
        var mirrors: [Mirror] = []
        var repositories: [Repository] = []
        for path in files + [system.projectPath("pom.xml")].compactMap({ $0 }) {
            guard let text = system.contents(of: path) else { continue }
            let document = SimpleXML(text)
            if files.contains(path) { mirrors += document.elements("mirror").compactMap { Mirror($0, path: path) } }
            repositories += Repository.Kind.allCases.flatMap { kind in
                document.elements(kind.rawValue).compactMap { Repository($0, kind: kind, path: path) }
            }
            for proxy in document.elements("proxy") where proxy.text(of: "active") != "false" {
                detection.note("maven: is configured to use a proxy, which is not in the sandbox")
            }
        }
        // Every project inherits central, for its dependencies and for its plugins, unless it says something else by its name.
        for kind in Repository.Kind.allCases.reversed()
        where !repositories.contains(where: { $0.kind == kind && $0.id == Repository.centralID }) {
            repositories.insert(.central(kind), at: 0)
        }
        // Also those that mirror nothing we know: repositories are declared in the projects of dependencies, too.
        for mirror in mirrors where !mirror.isBlocking {
            detection.add(url: mirror.url, source: "maven: a mirror of \(mirror.path)")
        }
        for repository in repositories where Mirror.selected(for: repository, among: mirrors) == nil {
            detection.add(url: repository.url, source: repository.source)
        }
        return detection
    }

    /// The user's settings and the installation's, or the files that the command line names instead.
    private func settingsFiles(program: String, _ detection: inout Detection) -> [String] {
        // …/bin/mvn, links resolved. mvn itself is not executed: it would read options of the project's.
        let installation = program.split(separator: "/").dropLast(2).joined(separator: "/")
        let places = [
            (options: ["--settings", "-s"], path: "\(system.home)/.m2/settings.xml"),
            (options: ["--global-settings", "-gs"], path: "/\(installation)/conf/settings.xml"),
        ]
        var files: [String] = []
        for place in places {
            guard let named = NamedFile(of: place.options, in: settings, on: system) else {
                files.append(place.path)
                continue
            }
            if let path = named.path {
                files.append(path)
            } else {
                detection.note(NamedSettings.note(ofUnread: named.option, of: .maven))
            }
        }
        return files
    }
}

extension MavenDetector {
    /// Where dependencies or plugins come from.
    private struct Repository {
        enum Kind: String, CaseIterable {
            case dependencies = "repository"
            case plugins = "pluginRepository"
        }

        static let centralID = "central"

        let kind: Kind
        let id: String
        let url: String
        let source: String

        static func central(_ kind: Kind) -> Repository {
            Repository(
                kind: kind,
                id: centralID,
                url: "https://repo.maven.apache.org/maven2",
                source: "maven: central, its default"
            )
        }

        private init(kind: Kind, id: String, url: String, source: String) {
            self.kind = kind
            self.id = id
            self.url = url
            self.source = source
        }

        init?(_ element: SimpleXML, kind: Kind, path: String) {
            guard let url = element.text(of: "url") else { return nil }
            self.init(
                kind: kind,
                id: element.text(of: "id") ?? "",
                url: url,
                source: "maven: a \(kind.rawValue) of \(path)"
            )
        }

        /// Neither a file nor on this machine, in Maven's words.
        var isExternal: Bool { !["file:", "http://localhost", "http://127.0.0.1"].contains { url.hasPrefix($0) } }

        var isCleartext: Bool { url.hasPrefix("http:") }
    }

    /// What stands in for repositories.
    private struct Mirror {
        let path: String
        let url: String
        /// What it stands in for: names, patterns, and exceptions with an exclamation mark.
        let patterns: [String]
        /// Whether it only keeps Maven from what it mirrors.
        let isBlocking: Bool

        init?(_ element: SimpleXML, path: String) {
            guard let url = element.text(of: "url") else { return nil }
            self.path = path
            self.url = url
            patterns = (element.text(of: "mirrorOf") ?? "").split(separator: ",").map { $0.trimming(" \n\t\r") }
            isBlocking = element.text(of: "blocked") == "true"
        }

        /// The one that Maven uses for a repository: named alone, or else the first whose patterns match.
        static func selected(for repository: Repository, among mirrors: [Mirror]) -> Mirror? {
            mirrors.first { $0.patterns == [repository.id] } ?? mirrors.first { $0.matches(repository) }
        }

        private func matches(_ repository: Repository) -> Bool {
            if patterns.contains("!\(repository.id)") { return false }
            return patterns.contains { pattern in
                switch pattern {
                case "*", repository.id: true
                case "external:*": repository.isExternal
                case "external:http:*": repository.isExternal && repository.isCleartext
                default: false
                }
            }
        }
    }
}
