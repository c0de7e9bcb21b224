import CLinux
import Glibc
import NetPrimitives
import PolicyDocument
import Reactor

/// Reads policy files.
enum PolicyFile {
    /// More than any policy needs; see `PolicyDocument`'s own limit.
    private static let maximumBytes = 8 * 1024 * 1024

    /// Reads and validates the file at `path`; `-` is standard input. Warnings go to standard error. `refusingSetup` says
    /// why there can be no set-up phase, if so.
    static func load(_ path: String, kept: Bool = false, refusingSetup: String? = nil) throws -> PolicyDocument {
        let document: PolicyDocument
        let name = path == "-" ? "<stdin>" : path
        do {
            document = try PolicyDocument.load(
                bytes: try read(path, kept: kept),
                format: .automatic,
                file: name,
                now: .current
            )
            if let refusingSetup { try document.refuseSetup(file: name, refusingSetup) }
        } catch let error as DocumentError {
            throw SetupError(error.problems.map(\.description).joined(separator: "\n"))
        }
        for warning in document.warnings { Console.error("warning: \(warning)") }
        return document
    }

    /// The file's bytes. One that is `kept` may be read again while the program runs: it has to be a file or a device.
    /// A pipe would keep who reads it waiting for whoever writes, and be empty for everybody after him.
    static func read(_ path: String, kept: Bool = false) throws(SetupError) -> [UInt8] {
        let flags = O_RDONLY | O_CLOEXEC | (kept ? O_NONBLOCK : 0)
        let descriptor = path == "-" ? dup(STDIN_FILENO) : open(path, flags)
        guard descriptor >= 0 else { throw SetupError("cannot read \(path): \(String(cString: strerror(errno)))") }
        defer { close(descriptor) }
        var status = stat()
        if kept, fstat(descriptor, &status) == 0, status.st_mode & S_IFMT == S_IFIFO {
            throw SetupError("cannot read \(path): expected a file, found a pipe")
        }
        var bytes: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 64 * 1024)
        while true {
            let count = Glibc.read(descriptor, &chunk, chunk.count)
            if count == 0 { return bytes }
            if count < 0 {
                if errno == EINTR { continue }
                throw SetupError("cannot read \(path): \(String(cString: strerror(errno)))")
            }
            bytes += chunk.prefix(count)
            guard bytes.count <= maximumBytes else { throw SetupError("cannot read \(path): larger than 8 MiB") }
        }
    }
}
