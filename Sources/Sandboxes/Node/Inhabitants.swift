import CLinux
import FilePrimitives
import Glibc
import Namespaces
import Reactor

/// The processes in a network namespace, and what the kernel would let them do there. Packet sockets put frames on the
/// wire behind every rule, and who may configure the network may take its devices away: rules inside hold neither.
///
/// Namespaces and capabilities are a thread's own. A process whose first thread has given its capabilities up, has gone to
/// another namespace or has ended may have threads that did none of this, so each thread is looked at.
enum Inhabitants {
    /// A process that could get around the rules.
    struct Threat: Hashable, Sendable {
        let process: Int32
        let program: String
        /// Names of capabilities.
        let capabilities: [String]
    }

    /// A process that has something open by which it could get around the rules, without a capability.
    struct Holder: Hashable, Sendable {
        let process: Int32
        let program: String
        /// Which device, where it is one.
        let device: String?

        /// The process of a thread, which is a directory below /proc.
        fileprivate init(_ thread: String, device: String?) {
            process = thread.split(separator: "/").first.flatMap { Int32($0) } ?? 0
            program = (try? Status(of: thread)?.name) ?? "?"
            self.device = device
        }
    }

    /// Of linux/capability.h: what counts over the namespace.
    private static let dangerous = [(12, "CAP_NET_ADMIN"), (13, "CAP_NET_RAW")]
    /// What counts in the machine's user namespace alone. bpf(2) takes it for CAP_NET_ADMIN: its programs, attached to the
    /// namespace's devices, redirect what the rules let go because it stays inside.
    private static let dangerousAbove = [(21, "CAP_SYS_ADMIN")]

    /// Those of the processes in `namespace` that have, or could get by executing a program, a capability over it that
    /// the rules do not hold against.
    /// - Throws: when one of them that lives cannot be looked at.
    static func threats(in namespace: NetworkNamespace) throws -> [Threat] {
        let owner = clinux_owning_user_namespace(namespace.descriptor)
        defer { if owner >= 0 { close(owner) } }
        let wanted = try namespace.enter { try netFile(of: "thread-self") }
        guard let wanted else { throw SystemError.current("look at", "/proc/thread-self/net/dev") }
        // Threads of this process may carry the traffic of a sandbox in there.
        return try processes().filter { $0 != getpid() }.compactMap { process -> Threat? in
            for thread in try threads(of: process) {
                // One whose status cannot be read has just ended.
                guard try netFile(of: thread) == wanted, let status = try Status(of: thread) else { continue }
                var held = status.names(of: dangerousAbove)
                if !held.isEmpty, isInAnotherUserNamespace(thread) { held = [] }
                let overNetwork = status.names(of: dangerous)
                if !overNetwork.isEmpty, owner < 0 || !isBelow(thread, owner) { held = overNetwork + held }
                guard !held.isEmpty else { continue }
                return Threat(process: process, program: status.name, capabilities: held)
            }
            return nil
        }
    }

    /// Those of the sockets, told by their inode numbers, that processes outside `namespace` hold and nobody inside: processes
    /// of this one's PID and user namespaces, which no container has a part in.
    static func socketsHeldOutside(_ inodes: [UInt32], of namespace: NetworkNamespace) throws -> Set<UInt32> {
        guard let inside = try namespace.enter({ try netFile(of: "thread-self") }) else { return [] }
        let links = Dictionary(inodes.map { ("socket:[\($0)]", $0) }) { first, _ in first }
        var (outside, others): (Set<UInt32>, Set<UInt32>) = ([], [])
        for process in try processes() {
            let held = Set(descriptors(of: process).compactMap { links[$0] })
            guard !held.isEmpty else { continue }
            let isOutside = try isOurs(process) && netFile(of: "\(process)") != inside
            if isOutside { outside.formUnion(held) } else { others.formUnion(held) }
        }
        return outside.subtracting(others)
    }

    /// The processes in `namespace`, and those that share a PID namespace with one of these but not with this process: they are of
    /// the same container, and could hand over what they have.
    static func neighbours(of namespace: NetworkNamespace) throws -> [Int32] {
        guard let wanted = try namespace.enter({ try netFile(of: "thread-self") }) else { return [] }
        let all = try processes().filter { $0 != getpid() }
        let inside = Set(
            try all.filter { process in
                try threads(of: process).contains { try netFile(of: $0) == wanted }
            }
        )
        let own = namespaceNumber("pid", of: "thread-self")
        let shared = Set(inside.compactMap { namespaceNumber("pid", of: "\($0)") }).filter { $0 != own }
        return all.filter { inside.contains($0) || namespaceNumber("pid", of: "\($0)").map(shared.contains) == true }
    }

    /// The first of `processes` that holds one of `devices`, tun or tap devices of a namespace. Who serves a network from outside by
    /// one (pasta, slirp4netns) is none of its ``neighbours(of:)``.
    static func holder(of devices: Set<String>, among processes: [Int32]) throws -> Holder? {
        guard !devices.isEmpty else { return nil }
        for thread in try processes.flatMap(threads) {
            for name in (try? DirectoryStream.names(in: "/proc/\(thread)/fd")) ?? [] {
                var status = stat()
                guard stat("/proc/\(thread)/fd/\(name)", &status) == 0, status.st_mode & S_IFMT == S_IFCHR,
                    status.st_rdev == tunDevice
                else { continue }
                let text = try? DurableFile.read("/proc/\(thread)/fdinfo/\(name)")
                let device = text.map { String(decoding: $0, as: UTF8.self) }?.split(separator: "\n")
                    .first { $0.hasPrefix("iff:\t") }?.dropFirst(5)
                guard let device, devices.contains(String(device)) else { continue }
                return Holder(thread, device: String(device))
            }
        }
        return nil
    }

    /// What gets around the rules without a capability, once a program that had one has made it.
    enum Keepsake: String, CaseIterable {
        /// Attached to a device of one's own network by whoever has it open.
        case program = "anon_inode:bpf-prog"
        /// Does what it is asked with credentials that were registered with it (IORING_REGISTER_PERSONALITY), of which the kernel
        /// tells nobody.
        case ring = "anon_inode:[io_uring]"
    }

    /// The first of `processes` that has one of each open.
    static func holders(among processes: [Int32]) throws -> [Keepsake: Holder] {
        var found: [Keepsake: Holder] = [:]
        // A thread may have descriptors of its own.
        for thread in try processes.flatMap(threads) {
            let links = descriptors(below: "/proc/\(thread)/fd")
            for keepsake in Keepsake.allCases where found[keepsake] == nil && links.contains(keepsake.rawValue) {
                found[keepsake] = Holder(thread, device: nil)
            }
        }
        return found
    }

    /// /dev/net/tun: makedev(10, 200).
    private static let tunDevice: dev_t = 10 << 8 | 200

    /// Where a process's descriptors lead; none when it has ended, or may not be looked at.
    private static func descriptors(of process: Int32) -> [String] { descriptors(below: "/proc/\(process)/fd") }

    private static func descriptors(below directory: String) -> [String] {
        guard let names = try? DirectoryStream.names(in: directory) else { return [] }
        return names.compactMap { name in
            var bytes = [CChar](repeating: 0, count: 64)
            let count = readlink("\(directory)/\(name)", &bytes, bytes.count)
            guard count > 0, count < bytes.count else { return nil }
            return String(decoding: bytes[..<count].map { UInt8(bitPattern: $0) }, as: UTF8.self)
        }
    }

    /// Whether a thread is known to be in another user namespace than this process.
    private static func isInAnotherUserNamespace(_ thread: String) -> Bool {
        guard let own = namespaceNumber("user", of: "thread-self"), let other = namespaceNumber("user", of: thread)
        else {
            return false
        }
        return own != other
    }

    /// Whether a process is in the PID and the user namespace of this one.
    private static func isOurs(_ process: Int32) -> Bool {
        ["pid", "user"].allSatisfy { kind in
            namespaceNumber(kind, of: "thread-self").map { $0 == namespaceNumber(kind, of: "\(process)") } ?? false
        }
    }

    /// The number of a thread's namespace of a kind; `nil` when it has ended, or may not be looked at.
    private static func namespaceNumber(_ kind: String, of thread: String) -> ino_t? {
        var status = stat()
        return stat("/proc/\(thread)/ns/\(kind)", &status) == 0 ? status.st_ino : nil
    }

    /// The number of a file that each network namespace has; `nil` for a thread that has ended. `/proc/PID/ns/net` says
    /// nothing of processes that have capabilities which we have not; what is below `net` says it of all.
    private static func netFile(of thread: String) throws(SystemError) -> UInt64? {
        var status = stat()
        let path = "/proc/\(thread)/net/dev"
        guard stat(path, &status) == 0 else {
            if saysThatItEnded(errno) { return nil }
            throw .current("look at", path)
        }
        return UInt64(status.st_ino)
    }

    /// Whether that is what /proc answers about a process that is there no more.
    private static func saysThatItEnded(_ errno: CInt) -> Bool { [ENOENT, ENOTDIR, EINVAL, ESRCH].contains(errno) }

    /// Whether a thread lives in a user namespace below `owner`: its capabilities are worth nothing above.
    private static func isBelow(_ thread: String, _ owner: CInt) -> Bool {
        guard let wanted = identity(owner) else { return false }
        var current = open("/proc/\(thread)/ns/user", O_RDONLY | O_CLOEXEC)
        guard current >= 0 else { return false }
        defer { close(current) }
        guard let own = identity(current), own != wanted else { return false }
        // The kernel nests user namespaces 32 deep.
        for _ in 0..<33 {
            let parent = clinux_parent_namespace(current)
            guard parent >= 0 else { return false }
            close(current)
            current = parent
            if identity(parent) == wanted { return true }
        }
        return false
    }

    private static func identity(_ descriptor: CInt) -> UInt64? {
        var status = stat()
        return fstat(descriptor, &status) == 0 ? UInt64(status.st_ino) : nil
    }

    private static func processes() throws(SystemError) -> [Int32] {
        do throws(DirectoryStream.Failure) {
            return try DirectoryStream.names(in: "/proc").compactMap { Int32($0) }
        } catch {
            throw SystemError(operation: "list", errno: error.errno, context: "/proc")
        }
    }

    /// The threads of a process, as directories below /proc; none when it has ended.
    private static func threads(of process: Int32) throws(SystemError) -> [String] {
        let directory = "/proc/\(process)/task"
        do throws(DirectoryStream.Failure) {
            return try DirectoryStream.names(in: directory).filter { Int32($0) != nil }.map { "\(process)/task/\($0)" }
        } catch {
            if saysThatItEnded(error.errno) { return [] }
            throw SystemError(operation: "list", errno: error.errno, context: directory)
        }
    }

    /// What `/proc/PID/task/TID/status` says.
    private struct Status {
        var name = ""
        /// What the thread has, or could get by executing a program.
        var capabilities: UInt64 = 0

        /// Those of `wanted` that it has, by name.
        func names(of wanted: [(Int, String)]) -> [String] {
            wanted.filter { capabilities & 1 << UInt64($0.0) != 0 }.map(\.1)
        }

        /// `nil` for a thread that has ended.
        init?(of thread: String) throws(SystemError) {
            let bytes: [UInt8]
            do {
                // All of it: before what it can do stand its groups, of which it may have joined as many as it likes.
                bytes = try DurableFile.read("/proc/\(thread)/status")
            } catch {
                if saysThatItEnded(error.errno) { return nil }
                throw error
            }
            guard !bytes.isEmpty else { return nil }
            var stated: Set<Substring> = []
            for line in String(decoding: bytes, as: UTF8.self).split(separator: "\n") {
                let words = line.split(whereSeparator: { $0 == "\t" || $0 == " " })
                guard words.count >= 2 else { continue }
                switch words[0] {
                case "Name:": name = String(words[1])
                case "CapPrm:", "CapBnd:":
                    stated.insert(words[0])
                    capabilities |= UInt64(words[1], radix: 16) ?? .max
                default: continue
                }
            }
            // Of one that is not known to be without, the worst is assumed.
            if stated.count < 2 { capabilities = .max }
        }
    }
}
