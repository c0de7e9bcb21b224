import CLinux
import FilePrimitives
import Glibc
import Reactor

/// A file that gets other contents in one step: a reader sees the old ones or the new ones, and so does whoever looks after
/// a crash.
enum ReplacedFile {
    /// Replaces the contents of the file at `path`. A symbolic link stays one: what it leads to is replaced. Mode and owner
    /// stay as they are; where the owner cannot be kept, nothing is written.
    static func write(_ bytes: [UInt8], to path: String) throws(SetupError) {
        guard let place = RealPath.of(path) else { throw failure("find", path) }
        var status = stat()
        guard stat(place, &status) == 0 else { throw failure("find", place) }
        guard status.st_mode & S_IFMT == S_IFREG else { throw SetupError("cannot write \(place): not a file") }
        guard access(place, W_OK) == 0 else { throw failure("write", place) }
        var template = Array((place + ".XXXXXX").utf8CString)
        let descriptor = mkstemp(&template)
        let temporary = template.withUnsafeBufferPointer { String(cString: $0.baseAddress!) }
        guard descriptor >= 0 else { throw failure("create", temporary) }
        defer { close(descriptor) }
        do throws(SetupError) {
            try fill(descriptor, with: bytes, as: status, temporary)
            guard rename(temporary, place) == 0 else { throw failure("rename", temporary) }
        } catch {
            unlink(temporary)
            throw error
        }
    }

    private static func fill(
        _ descriptor: CInt,
        with bytes: [UInt8],
        as status: stat,
        _ path: String
    ) throws(SetupError) {
        var rest = bytes[...]
        while !rest.isEmpty {
            let count = rest.withUnsafeBytes { Glibc.write(descriptor, $0.baseAddress, $0.count) }
            if count < 0, errno == EINTR { continue }
            guard count > 0 else { throw failure("write", path) }
            rest = rest.dropFirst(count)
        }
        // The owner first: who gives a file away loses its set-uid bits.
        if status.st_uid != geteuid() || status.st_gid != getegid() {
            guard fchown(descriptor, status.st_uid, status.st_gid) == 0 else {
                throw failure("keep the owner of", path)
            }
        }
        guard fchmod(descriptor, status.st_mode & 0o7777) == 0 else { throw failure("keep the mode of", path) }
        guard fsync(descriptor) == 0 else { throw failure("synchronise", path) }
    }

    private static func failure(_ action: String, _ path: String) -> SetupError {
        SetupError("cannot \(action) \(path): \(String(cString: strerror(errno)))")
    }
}
