import Glibc
import Reactor

/// Files that are there after a crash of the process or the machine: written beside their place, synchronised, and moved
/// into it.
enum DurableFile {
    /// Writes a file of the owner's alone, and synchronises it. Removes what there is of it when that fails.
    static func write(_ bytes: [UInt8], to path: String) throws(SystemError) {
        do throws(SystemError) {
            try writeAll(bytes, to: path)
        } catch {
            unlink(path)
            throw error
        }
    }

    private static func writeAll(_ bytes: [UInt8], to path: String) throws(SystemError) {
        let file = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0o600)
        guard file >= 0 else { throw .current("create", path) }
        defer { close(file) }
        try write(bytes, to: file, at: 0, path)
    }

    /// Writes at a place of a file that is open, and synchronises it. When that fails, part of it may be there. `path` is
    /// for messages.
    static func write(_ bytes: [UInt8], to file: CInt, at place: Int, _ path: String) throws(SystemError) {
        var written = 0
        while written < bytes.count {
            let count = bytes.withUnsafeBytes {
                pwrite(file, $0.baseAddress! + written, $0.count - written, place + written)
            }
            if count < 0, errno == EINTR { continue }
            guard count > 0 else { throw .current("write", path) }
            written += count
        }
        guard fsync(file) == 0 else { throw .current("synchronise", path) }
    }

    /// Reads a file; neither a link to one nor anything else, for which the error is `EINVAL`.
    static func read(_ path: String) throws(SystemError) -> [UInt8] {
        // A pipe would keep us waiting for whoever writes.
        let file = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK)
        guard file >= 0 else { throw .current("open", path) }
        defer { close(file) }
        var status = stat()
        guard fstat(file, &status) == 0 else { throw .current("read", path) }
        guard status.st_mode & S_IFMT == S_IFREG else {
            throw SystemError(operation: "read", errno: EINVAL, context: path)
        }
        var bytes: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 64 * 1024)
        while true {
            let count = Glibc.read(file, &chunk, chunk.count)
            if count < 0, errno == EINTR { continue }
            guard count >= 0 else { throw .current("read", path) }
            if count == 0 { return bytes }
            bytes += chunk.prefix(count)
        }
    }

    /// Moves a file that ``write(_:to:)`` wrote into its place in the same directory; removes it when it cannot be moved.
    /// When this throws it may be in its place, though not for good.
    static func move(_ temporary: String, to place: String) throws(SystemError) {
        guard rename(temporary, place) == 0 else {
            let error = SystemError.current("rename", temporary)
            unlink(temporary)
            throw error
        }
        try synchroniseDirectory(of: place)
    }

    /// Has what was moved or removed stay so.
    static func synchroniseDirectory(of file: String) throws(SystemError) {
        let path = file.lastIndex(of: "/").map { String(file[...$0]) } ?? "."
        let directory = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard directory >= 0 else { throw .current("open", path) }
        defer { close(directory) }
        guard fsync(directory) == 0 else { throw .current("synchronise", path) }
    }
}
