import CLinux
import Glibc
import Namespaces
import Reactor

/// The processes in a network namespace, and what the kernel would let them do there. Packet sockets put frames on the
/// wire behind every rule, and who may configure the network may take its devices away: rules inside hold neither.
enum Inhabitants {
    /// A process that could get around the rules.
    struct Threat: Hashable, Sendable {
        let process: Int32
        let program: String
        /// Names of capabilities.
        let capabilities: [String]
    }

    /// CAP_NET_ADMIN and CAP_NET_RAW (linux/capability.h).
    private static let dangerous = [(12, "CAP_NET_ADMIN"), (13, "CAP_NET_RAW")]

    /// Those of the processes in `namespace` that have, or could get by executing a program, a capability over it that
    /// the rules do not hold against.
    static func threats(in namespace: NetworkNamespace) throws -> [Threat] {
        let owner = clinux_owning_user_namespace(namespace.descriptor)
        defer { if owner >= 0 { close(owner) } }
        return try processes(in: namespace).compactMap { process in
            // One whose status cannot be read has just ended.
            guard let status = Status(of: process) else { return nil }
            let held = dangerous.filter { status.capabilities & 1 << UInt64($0.0) != 0 }.map(\.1)
            guard !held.isEmpty, owner < 0 || !isBelow(process, owner) else { return nil }
            return Threat(process: process, program: status.name, capabilities: held)
        }
    }

    /// The processes in a network namespace, whoever's they are. `/proc/PID/ns/net` says nothing of processes that have
    /// capabilities which we have not; what is below `/proc/PID/net` says it of all: those files are the namespace's own.
    private static func processes(in namespace: NetworkNamespace) throws -> [Int32] {
        let wanted = try namespace.enter { netFile(of: "thread-self") }
        guard let wanted else { throw SystemError.current("look at", "/proc/thread-self/net/dev") }
        return processes().filter { netFile(of: "\($0)") == wanted }
    }

    /// The number of a file that each network namespace has; `nil` for a process that has ended.
    private static func netFile(of process: String) -> UInt64? {
        var status = stat()
        return stat("/proc/\(process)/net/dev", &status) == 0 ? UInt64(status.st_ino) : nil
    }

    /// Whether a process lives in a user namespace below `owner`: its capabilities are worth nothing above.
    private static func isBelow(_ process: Int32, _ owner: CInt) -> Bool {
        guard let wanted = identity(owner) else { return false }
        var current = open("/proc/\(process)/ns/user", O_RDONLY | O_CLOEXEC)
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

    private static func processes() -> [Int32] {
        guard let directory = opendir("/proc") else { return [] }
        defer { closedir(directory) }
        var found: [Int32] = []
        while let entry = readdir(directory) {
            let name = withUnsafePointer(to: entry.pointee.d_name) {
                $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            if let process = Int32(name) { found.append(process) }
        }
        return found
    }

    /// What `/proc/PID/status` says.
    private struct Status {
        var name = ""
        /// What the process has, or could get by executing a program.
        var capabilities: UInt64 = 0

        init?(of process: Int32) {
            let file = open("/proc/\(process)/status", O_RDONLY | O_CLOEXEC)
            guard file >= 0 else { return nil }
            defer { close(file) }
            var bytes = [UInt8](repeating: 0, count: 8_192)
            let count = read(file, &bytes, bytes.count)
            guard count > 0 else { return nil }
            for line in String(decoding: bytes.prefix(count), as: UTF8.self).split(separator: "\n") {
                let words = line.split(whereSeparator: { $0 == "\t" || $0 == " " })
                guard words.count >= 2 else { continue }
                switch words[0] {
                case "Name:": name = String(words[1])
                case "CapPrm:", "CapBnd:": capabilities |= UInt64(words[1], radix: 16) ?? .max
                default: continue
                }
            }
        }
    }
}
