import Glibc

/// The file that a log is written to: a regular file that is reached by no symbolic link, open for appending and
/// locked, so that two writers cannot tangle the chain. It is closed when nobody holds it any more.
final class LogFile {
    /// Whether opening makes the file.
    enum Creation {
        /// A file that exists is continued.
        case ifMissing
        /// There must be none.
        case always
    }

    /// What is in it.
    let contents: LogBytes
    /// What tells it from others.
    let identity: FileIdentity
    /// How long it is.
    private(set) var size: UInt64

    /// The file, for messages.
    var path: String { contents.path }

    /// Opens `path`, or creates it with mode 0600.
    convenience init(path: String) throws(AuditError) {
        try self.init(name: path, in: AT_FDCWD, path: path, creation: .ifMissing)
    }

    /// Opens `name` in the directory that is open as `directory`; `path` is what messages call it.
    init(name: String, in directory: CInt, path: String, creation: Creation) throws(AuditError) {
        // O_NONBLOCK: opening somebody's pipe must not hang; it changes nothing for a regular file.
        var flags = O_RDWR | O_APPEND | O_CREAT | O_NOFOLLOW | O_CLOEXEC | O_NOCTTY | O_NONBLOCK
        if creation == .always { flags |= O_EXCL }
        let opened = openat(directory, name, flags, 0o600)
        guard opened >= 0 else { throw .system("open", path) }
        let contents = LogBytes(descriptor: LogDescriptor(taking: opened), path: path)
        let status = try contents.status()
        guard status.st_mode & S_IFMT == S_IFREG else { throw AuditError(path: path, problem: .notRegular) }
        guard flock(opened, LOCK_EX | LOCK_NB) == 0 else {
            throw errno == EWOULDBLOCK ? AuditError(path: path, problem: .inUse) : .system("lock", path)
        }
        self.contents = contents
        identity = FileIdentity(status)
        size = UInt64(status.st_size)
    }

    /// Appends `bytes`; gives how many of them were written, and why not all.
    func append(_ bytes: [UInt8]) -> (written: Int, failure: AuditError?) {
        var written = 0
        while written < bytes.count {
            let count = bytes[written...].withUnsafeBytes {
                Glibc.write(contents.descriptor.value, $0.baseAddress, $0.count)
            }
            let code = errno
            if count > 0 {
                written += count
                size += UInt64(count)
            } else if count == 0 || code != EINTR {
                let cause = AuditError.Problem.system(operation: "write", errno: count < 0 ? code : ENOSPC)
                return (written, AuditError(path: path, problem: cause))
            }
        }
        return (written, nil)
    }
}
