import HostDetection

/// A machine made up for a test: what is not said does not exist.
struct FakeSystem: ToolSystem {
    var projectDirectory: String? = "/project"
    var variables: [String: String] = ["HOME": "/home/you"]
    var files: [String: String] = [:]
    var programs: [String: String] = [:]
    /// What a command line says.
    var outputs: [String: String] = [:]
    /// Why a command line that says something fails nevertheless.
    var failures: [String: String] = [:]

    func variable(_ name: String) -> String? { variables[name] }

    var variableNames: [String] { variables.keys.sorted() }

    /// The working directory is `/project`.
    func outsidePath(_ path: String) -> String? {
        path.hasPrefix("/") && !path.hasPrefix("/project/") && files[path] != nil ? path : nil
    }

    func contents(of path: String) -> String? { files[path] }

    func names(in directory: String) -> [String] {
        let below = files.keys.filter { $0.hasPrefix(directory + "/") }.map { $0.dropFirst(directory.count + 1) }
        return Set(below.compactMap { $0.split(separator: "/").first.map(String.init) }).sorted()
    }

    func path(ofProgram name: String) -> String? { programs[name] }

    func answer(of arguments: [String], inProject: Bool) throws(DetectionError) -> ToolAnswer {
        let command = arguments.joined(separator: " ")
        guard let output = outputs[command] else {
            return ToolAnswer(output: "", failure: .failed(command: command, cause: "exit status 1"))
        }
        return ToolAnswer(output: output, failure: failures[command].map { .failed(command: command, cause: $0) })
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
