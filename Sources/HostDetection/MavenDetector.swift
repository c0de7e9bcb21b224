/// Reads Maven's configuration: its own way to report it needs a plugin that would have to be downloaded. The user's and
/// the installation's settings.xml count, and the project's pom.xml.
struct MavenDetector {
    let system: any ToolSystem

    /// The repository that every project inherits.
    private static let central = "https://repo.maven.apache.org/maven2"

    func detect() throws(DetectionError) -> Detection {
        guard let program = system.path(ofProgram: "mvn") else { throw .missing("mvn") }
        var files = ["\(system.home)/.m2/settings.xml"]
        // …/bin/mvn, links resolved. mvn itself is not executed: it would read options of the project's.
        let bin = program.split(separator: "/").dropLast(2).joined(separator: "/")
        files.append("/\(bin)/conf/settings.xml")
        if let pom = system.projectPath("pom.xml") { files.append(pom) }

        var detection = Detection()
        var mirrored: [String] = []
        var repositories: [(url: String, source: String)] = []
        for path in files {
            guard let text = system.contents(of: path) else { continue }
            let document = SimpleXML(text)
            for mirror in document.elements("mirror") {
                guard let url = mirror.text(of: "url"), mirror.text(of: "blocked") != "true" else { continue }
                mirrored += (mirror.text(of: "mirrorOf") ?? "").split(separator: ",").map { $0.trimming(" \n\t\r") }
                detection.add(url: url, source: "maven: a mirror of \(path)")
            }
            for kind in ["repository", "pluginRepository"] {
                for repository in document.elements(kind) {
                    guard let url = repository.text(of: "url") else { continue }
                    repositories.append((url, "maven: a \(kind) of \(path)"))
                }
            }
            for proxy in document.elements("proxy") where proxy.text(of: "active") != "false" {
                detection.note("maven: is configured to use a proxy, which is not in the sandbox")
            }
        }
        // With exceptions, some repository is asked itself.
        let isEverythingMirrored = mirrored.contains("*") && !mirrored.contains { $0.hasPrefix("!") }
        guard !isEverythingMirrored else { return detection }
        if !mirrored.contains(where: { ["*", "central", "external:*"].contains($0) }) {
            detection.add(url: Self.central, source: "maven: central, its default")
        }
        for repository in repositories { detection.add(url: repository.url, source: repository.source) }
        return detection
    }
}
