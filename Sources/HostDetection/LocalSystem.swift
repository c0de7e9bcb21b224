import FilePrimitives
import Glibc

/// This machine, as the user who asks sees it.
public struct LocalSystem: ToolSystem {
    /// The working directory, if what lies there counts.
    public let projectDirectory: String?

    private static let maximumFileBytes = 4 << 20

    /// With `countsProject`, what lies in the working directory counts, too.
    public init(countsProject: Bool) {
        projectDirectory = countsProject ? Self.workingDirectory() : nil
    }

    private static func workingDirectory() -> String? {
        guard let path = getcwd(nil, 0) else { return nil }
        defer { free(path) }
        return String(cString: path)
    }

    /// The names of this process's environment variables, sorted.
    public var variableNames: [String] {
        var names: [String] = []
        var pointer = environ
        while let line = pointer.pointee {
            names.append(String(String(cString: line).prefix { $0 != "=" }))
            pointer += 1
        }
        return names.sorted()
    }

    /// The path of a file outside of the working directory, whatever that is to count for.
    public func outsidePath(_ path: String) -> String? {
        guard path.hasPrefix("/"), let directory = Self.workingDirectory(), let resolved = RealPath.of(path) else {
            return nil
        }
        let isInside = directory == "/" || resolved.hasPrefix("\(directory)/")
        return isInside ? nil : resolved
    }

    /// The value of one of this process's environment variables.
    public func variable(_ name: String) -> String? {
        guard let value = getenv(name), value.pointee != 0 else { return nil }
        return String(cString: value)
    }

    /// The text of a regular file or the like, up to a bound.
    public func contents(of path: String) -> String? {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
        guard descriptor >= 0 else { return nil }
        defer { close(descriptor) }
        var bytes: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 64 << 10)
        while bytes.count <= Self.maximumFileBytes {
            let count = read(descriptor, &chunk, chunk.count)
            if count < 0, errno == EINTR { continue }
            guard count >= 0 else { return nil }
            guard count > 0 else { break }
            bytes += chunk.prefix(count)
        }
        return String(decoding: bytes, as: UTF8.self)
    }

    /// The names in a directory, sorted; none of one that cannot be listed.
    public func names(in directory: String) -> [String] {
        (try? DirectoryStream.names(in: directory)) ?? []
    }

    /// The path of a program in a directory of PATH that is absolute, links resolved.
    public func path(ofProgram name: String) -> String? {
        searched(name).flatMap(RealPath.of)
    }

    /// The program as PATH has it. Relative directories do not count: they are the project's.
    private func searched(_ name: String) -> String? {
        (variable("PATH") ?? "/usr/local/bin:/usr/bin:/bin").split(separator: ":").lazy
            .filter { $0.hasPrefix("/") }
            .map { "\($0)/\(name)" }
            .first { access($0, X_OK) == 0 }
    }

    /// What a program on PATH says within its patience; see ``ToolSystem/answer(of:inProject:)``.
    public func answer(of arguments: [String], inProject: Bool) throws(DetectionError) -> ToolAnswer {
        guard let program = searched(arguments[0]) else { throw .missing(arguments[0]) }
        let directory = (inProject ? projectDirectory : nil) ?? "/"
        return try Question(program: program, arguments: arguments, directory: directory).ask()
    }
}
