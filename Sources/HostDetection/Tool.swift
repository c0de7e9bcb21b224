/// A tool that can be asked which hosts it is configured to use.
public enum Tool: String, Hashable, Sendable, CaseIterable {
    case pip
    case npm
    case cargo
    case go
    case maven
    case gem
    case apt
    case git

    /// The names of all of them, for people.
    public static var allNames: String { allCases.map(\.rawValue).joined(separator: ", ") }

    /// The tool of a name, or of a program that goes with it: `pip3.11`, `npx`, `mvn`, `bundle`, `apt-get`.
    public init?(named name: String) {
        switch name {
        case "npx": self = .npm
        case "mvn", "mvnw": self = .maven
        case "bundle", "bundler": self = .gem
        case "apt-get", "aptitude": self = .apt
        case _ where Self.isVersioned(name, "pip"): self = .pip
        default:
            guard let tool = Tool(rawValue: name) else { return nil }
            self = tool
        }
    }

    /// `pip`, `pip3`, `pip3.11`.
    private static func isVersioned(_ name: String, _ program: String) -> Bool {
        name.hasPrefix(program)
            && name.utf8.dropFirst(program.utf8.count).allSatisfy { "0123456789.".utf8.contains($0) }
    }

    /// Which hosts the tool uses, by its own account. `program` is the words it is asked by, its name if `nil`;
    /// `arguments` are those of the command line, which may name settings.
    public func detect(
        on system: any ToolSystem,
        program: [String]? = nil,
        arguments: [String] = []
    ) throws(DetectionError) -> Detection {
        let settings = NamedSettings(arguments: arguments)
        return switch self {
        case .pip: try PipDetector(system: system, program: program ?? ["pip"]).detect()
        case .npm: try NPMDetector(system: system, settings: settings).detect()
        case .cargo: try CargoDetector(system: system, settings: settings).detect()
        case .go: try GoDetector(system: system).detect()
        case .maven: try MavenDetector(system: system, settings: settings).detect()
        case .gem: try GemDetector(system: system, settings: settings).detect()
        case .apt: try AptDetector(system: system, settings: settings).detect()
        case .git: try GitDetector(system: system, settings: settings).detect()
        }
    }
}

extension Tool {
    /// A tool as a command line starts it.
    public struct Invocation: Hashable, Sendable {
        /// The tool.
        public let tool: Tool
        /// The words to ask it by: those of the command line, but never a path from it. What is about to be confined
        /// must not be executed outside first.
        public let program: [String]
        /// What stands behind.
        public let arguments: [String]

        /// Recognises `pip …`, `/usr/bin/pip3 …`, `python3 -m pip …`, `npx …` and so on; `nil` when no tool is.
        public init?(command: [String]) {
            guard let first = command.first else { return nil }
            let isPath = first.contains("/")
            let name = first.split(separator: "/").last.map(String.init) ?? first
            if Tool.isVersioned(name, "python"), let module = command.firstIndex(of: "-m"), module + 1 < command.count,
                command[1..<module].allSatisfy({ $0.hasPrefix("-") }), let tool = Tool(named: command[module + 1])
            {
                guard tool == .pip else { return nil }
                self.tool = tool
                program = isPath ? ["pip"] : [name, "-m", "pip"]
                arguments = Array(command[(module + 2)...])
                return
            }
            guard let tool = Tool(named: name) else { return nil }
            self.tool = tool
            program = [isPath ? tool.rawValue : name]
            arguments = Array(command.dropFirst())
        }

        /// The hosts of the tool's configuration, and of the URLs on the command line.
        public func detect(on system: any ToolSystem) throws(DetectionError) -> Detection {
            let git = GitDetector(system: system, settings: NamedSettings(arguments: arguments))
            var detection = try tool.detect(on: system, program: program, arguments: arguments)
            for argument in arguments {
                let value = argument.split(separator: "=", maxSplits: 1).last.map(String.init) ?? argument
                var url = argument.hasPrefix("-") ? value : argument
                guard url.contains("://") || tool == .git && Self.isRemote(url) else { continue }
                if tool == .git { url = try git.effectiveURL(of: url) }
                guard case .host(let authority) = URLAuthority.parse(remote: url) else { continue }
                detection.add(authority.target, port: authority.port, source: "\(tool.rawValue): on the command line")
            }
            return detection
        }

        /// `user@host:path`. Without a user it may as well be a refspec, or prose.
        private static func isRemote(_ text: String) -> Bool {
            guard let at = text.firstIndex(of: "@"), let colon = text.firstIndex(of: ":") else { return false }
            return at < colon && !text.contains { $0.isWhitespace }
        }
    }
}
