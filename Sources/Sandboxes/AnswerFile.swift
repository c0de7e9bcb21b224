public import EgressPolicy
import Glibc
import NetPrimitives
import PolicyDocument
import Reactor

/// The file of what has been allowed for always: an `egress` list of names that people may edit, and which is continued
/// with a line for each answer. It is written in place, under a lock, so that several processes can share it.
///
///     networkPolicy:
///       defaultAction: deny
///       egress:
///         - {action: allow, target: "example.com", ports: [443], protocol: tcp, comment: "asked …, allowed by alice"}
public final class AnswerFile: Sendable {
    /// Why a file is none of answers.
    public struct Invalid: Error, CustomStringConvertible {
        /// One problem a line: file, line, field, and what was expected.
        public let description: String
    }

    /// A line that is in the file for good, unless it is taken back.
    public final class Addition: Sendable {
        /// What stands in the file.
        public let rules: [Rule]
        private let file: CInt
        private let sizeBefore: Int

        fileprivate init(_ rules: [Rule], in file: CInt, after sizeBefore: Int) {
            (self.rules, self.file, self.sizeBefore) = (rules, file, sizeBefore)
        }

        deinit {
            // The lock goes with it.
            close(file)
        }

        /// Takes the line back.
        public func undo() {
            guard ftruncate(file, sizeBefore) == 0 else { return }
            fsync(file)
        }
    }

    /// The path.
    public let path: String
    /// What stood in it when it was opened.
    public let rulesAtOpening: [Rule]
    /// The file itself, where no other of the name is to take its place.
    private let kept: CInt?

    private static let beginning = """
        # What has been allowed for always, by people or programs that were asked. These rules stand behind each policy of
        # whoever asks. Take a line away to have it asked again; each answer adds one at the end.
        networkPolicy:
          defaultAction: deny
          egress:

        """

    /// The file at `path`, made if need be. Throws why no answer could be kept there, if so. With `isHeld`, it is the file
    /// that was there at the beginning for as long as this lives, whatever takes its name.
    public init(path: String, isHeld: Bool = false) throws {
        self.path = path
        let file = try Self.open(path)
        kept = isHeld ? file : nil
        defer { if !isHeld { close(file) } }
        do {
            try Self.lock(file, path)
            let text = try Self.read(file, path)
            if text.isEmpty { try Self.append(Self.beginning, to: file, path, after: 0) }
            flock(file, LOCK_UN)
            rulesAtOpening = text.isEmpty ? [] : try Self.rules(in: text, path)
        } catch {
            if isHeld { close(file) }
            throw error
        }
    }

    deinit {
        if let kept { close(kept) }
    }

    /// What stands in the file at `path`, which has to be there.
    public static func rules(at path: String) throws -> [Rule] {
        let file = try open(path, O_RDONLY)
        defer { close(file) }
        return try rules(in: try read(file, path), path)
    }

    /// What stands in the file; nothing where there is none any more.
    public func load() throws -> [Rule] {
        let file: CInt
        do {
            file = try opened()
        } catch let error as SystemError {
            guard error.errno == ENOENT else { throw error }
            return []
        }
        defer { close(file) }
        return try Self.rules(in: try Self.read(file, path), path)
    }

    /// Writes a rule more to the disk, behind the others. Nothing is changed when this throws.
    public func add(_ rule: Rule) throws -> Addition {
        let file = try kept == nil ? Self.open(path) : opened()
        do {
            try Self.lock(file, path)
            var text = try Self.read(file, path)
            let size = text.count
            let before = try Self.rules(in: text, path)
            var line = "    \(PolicyDocument.yaml(of: rule))\n"
            if text.isEmpty { line = Self.beginning + line } else if text.last != 0x0a { line = "\n" + line }
            text += Array(line.utf8)
            let after = try? Self.rules(in: text, path)
            guard let after, after == before + [rule] else {
                throw Invalid(
                    description: "\(path): a line at its end would not be a rule: end it with the egress list, "
                        + "whose lines are indented by 4 spaces"
                )
            }
            try Self.append(line, to: file, path, after: size)
            return Addition(after, in: file, after: size)
        } catch {
            close(file)
            throw error
        }
    }

    /// Adds a rule, which `enforce` puts in force with the others: both or neither.
    public func add(_ rule: Rule, enforce: (_ rules: [Rule]) throws -> Void) throws {
        let addition = try add(rule)
        do {
            try enforce(addition.rules)
        } catch {
            addition.undo()
            throw error
        }
    }

    /// Only an offset is shared with a file that is held, and nobody needs one.
    private func opened() throws -> CInt {
        guard let kept else { return try Self.open(path, O_RDONLY) }
        let file = fcntl(kept, F_DUPFD_CLOEXEC, 0)
        guard file >= 0 else { throw SystemError.current("open", path) }
        return file
    }

    private static func open(_ path: String, _ mode: CInt = O_RDWR | O_CREAT) throws -> CInt {
        // A pipe would keep us waiting for whoever writes.
        let file = Glibc.open(path, mode | O_CLOEXEC | O_NONBLOCK, 0o600)
        guard file >= 0 else { throw SystemError.current("open", path) }
        var status = stat()
        guard fstat(file, &status) == 0, status.st_mode & S_IFMT == S_IFREG else {
            close(file)
            throw Invalid(description: "\(path): expected a file")
        }
        return file
    }

    /// How long the lock is waited for: who may read a file may lock it, the command that is asked about too, and keep us from all
    /// else as long as it likes. One of us has it for a moment.
    private static let patienceMilliseconds = 1_000
    private static let pauseMilliseconds = 10

    private static func lock(_ file: CInt, _ path: String) throws {
        for _ in 0..<(patienceMilliseconds / pauseMilliseconds) {
            if flock(file, LOCK_EX | LOCK_NB) == 0 { return }
            switch errno {
            case EINTR: continue
            case EWOULDBLOCK: usleep(UInt32(pauseMilliseconds * 1_000))
            default: throw SystemError.current("lock", path)
            }
        }
        throw Invalid(description: "\(path): another process has locked it")
    }

    private static func read(_ file: CInt, _ path: String) throws -> [UInt8] {
        var bytes: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 64 * 1024)
        while true {
            let count = pread(file, &chunk, chunk.count, bytes.count)
            if count < 0, errno == EINTR { continue }
            guard count >= 0 else { throw SystemError.current("read", path) }
            if count == 0 { return bytes }
            bytes += chunk.prefix(count)
        }
    }

    /// All of it or nothing.
    private static func append(_ text: String, to file: CInt, _ path: String, after size: Int) throws {
        do {
            try DurableFile.write(Array(text.utf8), to: file, at: size, path)
        } catch {
            ftruncate(file, size)
            throw error
        }
    }

    private static func rules(in bytes: [UInt8], _ path: String) throws -> [Rule] {
        let policy = try PolicyDocument.load(bytes: bytes, format: .automatic, file: path, now: .current).policy
        guard policy.defaultAction == .deny, policy.mode == .enforce, policy.setup == nil else {
            throw Invalid(description: "\(path): expected nothing but an egress list: it is no policy by itself")
        }
        for (index, rule) in policy.rules.enumerated() {
            guard rule.action == .allow else {
                throw Invalid(description: "\(path): egress[\(index)].action: expected allow: a no is for the policy")
            }
            guard !rule.target.isOfAddresses else {
                throw Invalid(description: "\(path): egress[\(index)].target: expected a name, found \(rule.target)")
            }
        }
        return policy.rules
    }
}
