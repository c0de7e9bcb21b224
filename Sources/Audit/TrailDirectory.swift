import FilePrimitives
import Glibc

/// The directory that a trail's files are in. All of them are reached through its descriptor, by no symbolic link.
struct TrailDirectory: ~Copyable {
    let path: String
    private let descriptor: LogDescriptor

    /// Opens a directory that exists.
    init(path: String) throws(AuditError) {
        let descriptor = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard descriptor >= 0 else { throw .directory("open", path) }
        self.path = path
        self.descriptor = LogDescriptor(taking: descriptor)
    }

    /// Opens a directory, which is made with mode 0700 when there is none.
    init(creating path: String) throws(AuditError) {
        guard mkdir(path, 0o700) == 0 || errno == EEXIST else { throw .directory("create", path) }
        try self.init(path: path)
    }

    /// Where a file is, for messages.
    private func path(of name: TrailFileName) -> String { "\(path)/\(name)" }

    /// The rotated files there are now, by the number of their first record, in ascending order.
    func rotatedFiles() throws(AuditError) -> [UInt64] {
        // A description of its own: its place in the list is not shared.
        let listing = openat(descriptor.value, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard listing >= 0 else { throw .directory("read", path) }
        do throws(DirectoryStream.Failure) {
            var stream = try DirectoryStream(taking: listing)
            var numbers: [UInt64] = []
            while let entry = try stream.next() {
                if case .rotated(let number)? = TrailFileName(entry.name.description) { numbers.append(number) }
            }
            return numbers.sorted()
        } catch {
            throw .directory("read", path, errno: error.errno)
        }
    }

    /// A file, open for reading; `nil` when there is none of that name.
    func reader(of name: TrailFileName) throws(AuditError) -> AuditReader? {
        let flags = O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NOCTTY | O_NONBLOCK
        let file = openat(descriptor.value, name.description, flags)
        guard file >= 0 else {
            if errno == ENOENT { return nil }
            throw .system("open", path(of: name))
        }
        let reader = try AuditReader(descriptor: LogDescriptor(taking: file), path: path(of: name))
        guard try reader.contents.status().st_mode & S_IFMT == S_IFREG else {
            throw AuditError(path: reader.path, problem: .notRegular)
        }
        return reader
    }
}

/// What the writer does.
extension TrailDirectory {
    /// Keeps other writers away as long as the directory is open. The lock of the file alone would leave a moment,
    /// while one file follows another.
    func lock() throws(AuditError) {
        guard flock(descriptor.value, LOCK_EX | LOCK_NB) == 0 else {
            guard errno == EWOULDBLOCK else { throw .directory("lock", path) }
            throw AuditError(path: path(of: .current), problem: .inUse)
        }
    }

    /// Lets others write.
    func unlock() { flock(descriptor.value, LOCK_UN) }

    /// The current file, open for appending.
    func currentFile(_ creation: LogFile.Creation) throws(AuditError) -> LogFile {
        let name = TrailFileName.current
        return try LogFile(name: name.description, in: descriptor.value, path: path(of: name), creation: creation)
    }

    /// Where the newest of `numbers` ends. A file without a record, which a power failure leaves, is seen together
    /// with what it continues.
    func tail(ofRotated numbers: ArraySlice<UInt64>) throws(AuditError) -> LogTail {
        guard let newest = numbers.last else { return LogTail() }
        let older = numbers.dropLast()
        guard let reader = try reader(of: .rotated(newest)) else { return try tail(ofRotated: older) }
        return try LogTail(of: reader.contents) { () throws(AuditError) in try tail(ofRotated: older) }
    }

    /// Names the current file, which is the one that `identity` tells, after the number of its first record. A file
    /// that has been renamed before is left alone. No file is replaced, but for an empty one.
    func setAside(_ identity: FileIdentity?, firstSequence: UInt64) throws(AuditError) {
        let current = TrailFileName.current.description
        let rotated = TrailFileName.rotated(firstSequence).description
        func refusal(_ code: CInt) -> AuditError {
            AuditError(path: path(of: .current), problem: .system(operation: "rotate", errno: code))
        }
        guard let status = try status(of: current) else { return }
        guard FileIdentity(status) == identity else { throw refusal(EEXIST) }
        if let obstacle = try self.status(of: rotated) {
            guard obstacle.st_mode & S_IFMT == S_IFREG, obstacle.st_size == 0 else { throw refusal(EEXIST) }
        }
        guard renameat(descriptor.value, current, descriptor.value, rotated) == 0 else { throw refusal(errno) }
    }

    /// Removes a rotated file; it is no failure when it is gone.
    func remove(rotated number: UInt64) throws(AuditError) {
        let name = TrailFileName.rotated(number)
        guard unlinkat(descriptor.value, name.description, 0) == 0 || errno == ENOENT else {
            throw .system("remove", path(of: name))
        }
    }

    private func status(of name: String) throws(AuditError) -> stat? {
        var status = stat()
        guard fstatat(descriptor.value, name, &status, AT_SYMLINK_NOFOLLOW) == 0 else {
            if errno == ENOENT { return nil }
            throw .system("inspect", "\(path)/\(name)")
        }
        return status
    }
}

/// What the files of a trail are called.
enum TrailFileName: Hashable, CustomStringConvertible {
    /// `audit.jsonl`, which is written to.
    case current
    /// `audit-00000000000000000042.jsonl`: the number of its first record, so that the order of names is that of
    /// records.
    case rotated(UInt64)

    private static let digits = 20

    /// The file that has this name; `nil` for names that are no trail's.
    init?(_ name: String) {
        if name == "audit.jsonl" {
            self = .current
            return
        }
        guard name.hasPrefix("audit-"), name.hasSuffix(".jsonl") else { return nil }
        let number = name.utf8.dropFirst("audit-".utf8.count).dropLast(".jsonl".utf8.count)
        guard number.count == Self.digits, number.allSatisfy({ (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) }),
            let sequence = UInt64(Substring(number)), sequence > 0
        else { return nil }
        self = .rotated(sequence)
    }

    var description: String {
        switch self {
        case .current: return "audit.jsonl"
        case .rotated(let sequence):
            let number = String(sequence)
            return "audit-\(String(repeating: "0", count: Self.digits - number.utf8.count))\(number).jsonl"
        }
    }
}
