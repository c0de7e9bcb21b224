import FilePrimitives
import Glibc
import PolicyDocument
import Reactor

/// The directory in which a node keeps a file for each of its sandboxes. What was committed is there after a crash of
/// the process or the machine: files are written beside their place, synchronised, and moved into it.
final class StateDirectory: Sendable {
    /// A record that is on the disk and not in its place yet.
    struct Staged: Sendable {
        fileprivate let temporary: String
        fileprivate let place: String
    }

    private let path: String
    private let lock: CInt
    private static let suffix = ".json"
    private static let temporarySuffix = ".new"

    /// Opens the directory, made if need be, for this process alone. Throws ``NodeError/conflict(_:)`` when another one
    /// has it.
    init(path: String) throws {
        self.path = path
        try Self.make(path)
        lock = open("\(path)/.lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0o600)
        guard lock >= 0 else { throw SystemError.current("open", "\(path)/.lock") }
        guard flock(lock, LOCK_EX | LOCK_NB) == 0 else {
            let isTaken = errno == EWOULDBLOCK
            let error = SystemError.current("lock", "\(path)/.lock")
            close(lock)
            throw isTaken ? NodeError.conflict("another process keeps its state in \(path)") : error
        }
    }

    deinit {
        close(lock)
    }

    /// Makes a directory that is its owner's alone, and those above it.
    static func make(_ path: String) throws(SystemError) {
        let components = path.split(separator: "/")
        var partial = path.hasPrefix("/") ? "" : "."
        for component in components {
            partial += "/\(component)"
            guard mkdir(partial, 0o700) != 0, errno != EEXIST else { continue }
            throw .current("create", "directory \(partial)")
        }
    }

    /// Every record, and what is wrong with the files that are none. Throws what may be otherwise the next time, no
    /// descriptors or memory for one: a sandbox that is on the disk would be taken for one that never was.
    func load() throws(SystemError) -> (records: [SandboxRecord], problems: [String]) {
        var records: [SandboxRecord] = []
        var problems: [String] = []
        for name in try fileNames() {
            if name.hasSuffix(Self.temporarySuffix) {
                // Was never committed.
                unlink("\(path)/\(name)")
                continue
            }
            guard name.hasSuffix(Self.suffix) else { continue }
            let file = "\(path)/\(name)"
            let bytes: [UInt8]
            do {
                bytes = try DurableFile.read(file)
            } catch {
                guard Self.fileErrors.contains(error.errno) else { throw error }
                problems.append("\(error)")
                continue
            }
            do {
                let record = try SandboxRecord(stored: bytes, file: file)
                guard name == record.id + Self.suffix else { throw NodeError.failed("\(file) is of \(record.id)") }
                records.append(record)
            } catch {
                problems.append("\(error)")
            }
        }
        return (records.sorted { $0.createdAt < $1.createdAt }, problems)
    }

    /// Writes a record to the disk. It counts from ``commit(_:)`` on.
    func stage(_ record: SandboxRecord) throws -> Staged {
        let place = "\(path)/\(record.id)\(Self.suffix)"
        let staged = Staged(temporary: place + Self.temporarySuffix, place: place)
        try DurableFile.write(try record.stored, to: staged.temporary)
        return staged
    }

    /// Puts a record in its place.
    func commit(_ staged: Staged) throws(SystemError) {
        try DurableFile.move(staged.temporary, to: staged.place)
    }

    /// Forgets a record that was staged.
    func discard(_ staged: Staged) {
        unlink(staged.temporary)
    }

    /// Writes a record in its place.
    func save(_ record: SandboxRecord) throws {
        try commit(try stage(record))
    }

    /// Removes the record of a sandbox; none is no error.
    func remove(_ id: String) throws(SystemError) {
        let place = "\(path)/\(id)\(Self.suffix)"
        guard unlink(place) == 0 || errno == ENOENT else { throw .current("remove", place) }
        try DurableFile.synchroniseDirectory(of: place)
    }

    private func fileNames() throws(SystemError) -> [String] {
        do throws(DirectoryStream.Failure) {
            return try DirectoryStream.names(in: path)
        } catch {
            throw SystemError(operation: "list", errno: error.errno, context: path)
        }
    }

    /// The errors by which a file itself cannot be read, now and later: not a file, not ours to read, a broken disk.
    private static let fileErrors: Set<CInt> = [ENOENT, ELOOP, EINVAL, ENXIO, EACCES, EPERM, EIO]
}
