/// What detection looks at: files, the environment, and tools that are asked. Tests have one of their own.
public protocol ToolSystem {
    /// The directory whose project files count, or `nil` when none do: what lies there may be the very thing that is not
    /// trusted.
    var projectDirectory: String? { get }
    /// The value of an environment variable; `nil` when it is not set or empty.
    func variable(_ name: String) -> String?
    /// The names of all environment variables, sorted.
    var variableNames: [String] { get }
    /// A file that a command line names, links resolved; `nil` unless its path is absolute and leads out of the working
    /// directory, where it may be the very thing that is not trusted.
    func outsidePath(_ path: String) -> String?
    /// The text of a file; `nil` when there is none that can be read.
    func contents(of path: String) -> String?
    /// The names in a directory, sorted; none when it cannot be read.
    func names(in directory: String) -> [String]
    /// The path of a program on PATH, links resolved.
    func path(ofProgram name: String) -> String?
    /// What a program says, asked with its working directory in the project or, if none counts, in `/`. Throws when it
    /// cannot be asked.
    func answer(of arguments: [String], inProject: Bool) throws(DetectionError) -> ToolAnswer
}

/// What a tool that was asked said.
public struct ToolAnswer: Hashable, Sendable {
    /// On its standard output.
    public let output: String
    /// Why it failed, if it did.
    public let failure: DetectionError?

    /// An answer from its parts.
    public init(output: String, failure: DetectionError? = nil) {
        self.output = output
        self.failure = failure
    }
}

extension ToolSystem {
    /// The user's home directory.
    var home: String { variable("HOME") ?? "/root" }

    /// What a program says on its standard output; throws when it fails. See ``answer(of:inProject:)``.
    func output(of arguments: [String], inProject: Bool) throws(DetectionError) -> String {
        let answer = try answer(of: arguments, inProject: inProject)
        if let failure = answer.failure { throw failure }
        return answer.output
    }

    /// The path of a file in the project.
    func projectPath(_ name: String) -> String? {
        projectDirectory.map { $0 == "/" ? "/\(name)" : "\($0)/\(name)" }
    }

    /// Throws unless a program is on PATH.
    func require(_ program: String) throws(DetectionError) {
        if path(ofProgram: program) == nil { throw .missing(program) }
    }
}

/// Why a tool could not be asked.
public enum DetectionError: Error, Hashable, Sendable {
    /// Not on PATH.
    case missing(String)
    /// It ran and failed, or said nothing that was understood.
    case failed(command: String, cause: String)
    /// Not a tool that can be asked.
    case unknown(String)
}

extension DetectionError: CustomStringConvertible {
    /// One clause for people.
    public var description: String {
        switch self {
        case .missing(let program): "\(program) is not installed: no such program on PATH"
        case .failed(let command, let cause): "cannot ask \(command): \(cause)"
        case .unknown("docker"), .unknown("podman"):
            "images are pulled by a daemon, which runs outside of the sandbox: there is nothing to allow"
        case .unknown(let name):
            "\"\(name)\" is not a tool whose configuration is known: expected \(Tool.allNames)"
        }
    }
}
