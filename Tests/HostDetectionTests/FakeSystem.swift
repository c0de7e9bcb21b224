import HostDetection

/// A machine made up for a test: what is not said does not exist.
struct FakeSystem: ToolSystem {
    var projectDirectory: String? = "/project"
    var variables: [String: String] = ["HOME": "/home/you"]
    var files: [String: String] = [:]
    var programs: [String: String] = [:]
    /// What a command line says.
    var outputs: [String: String] = [:]

    func variable(_ name: String) -> String? { variables[name] }

    func contents(of path: String) -> String? { files[path] }

    func names(in directory: String) -> [String] {
        let below = files.keys.filter { $0.hasPrefix(directory + "/") }.map { $0.dropFirst(directory.count + 1) }
        return Set(below.compactMap { $0.split(separator: "/").first.map(String.init) }).sorted()
    }

    func path(ofProgram name: String) -> String? { programs[name] }

    func output(of arguments: [String], inProject: Bool) throws(DetectionError) -> String {
        let command = arguments.joined(separator: " ")
        guard let output = outputs[command] else {
            throw .failed(command: command, cause: "exit status 1")
        }
        return output
    }
}

extension Detection {
    /// `host:port` for each host, in order.
    var places: [String] { hosts.map { "\($0.target):\($0.port)" } }

    /// The sources of a host.
    func sources(_ place: String) -> [String] {
        hosts.first { "\($0.target):\($0.port)" == place }?.sources ?? []
    }
}
