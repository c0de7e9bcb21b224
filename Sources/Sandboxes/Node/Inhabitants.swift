import CLinux
import Glibc
import Namespaces

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
    static func threats(in namespace: NetworkNamespace) -> [Threat] {
        let owner = clinux_owning_user_namespace(namespace.descriptor)
        defer { if owner >= 0 { close(owner) } }
        let link = "net:[\(namespace.identifier)]"
        return processes().compactMap { process in
            let place = place(of: process)
            guard place != .unknown else {
                // Without CAP_SYS_PTRACE nobody can tell where another user's process is.
                let name = Status(of: process)?.name ?? "?"
                return Threat(process: process, program: name, capabilities: ["unknown capabilities"])
            }
            guard place == .namespace(link) else { return nil }
            // One whose status cannot be read has just ended.
            guard let status = Status(of: process) else { return nil }
            let held = dangerous.filter { status.capabilities & 1 << UInt64($0.0) != 0 }.map(\.1)
            guard !held.isEmpty, owner < 0 || !isBelow(process, owner) else { return nil }
            return Threat(process: process, program: status.name, capabilities: held)
        }
    }

    /// Whether any process is in `namespace`.
    static func exist(in namespace: NetworkNamespace) -> Bool {
        let link = "net:[\(namespace.identifier)]"
        return processes().contains { [.namespace(link), .unknown].contains(place(of: $0)) }
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

    /// Where a process is.
    private enum Place: Equatable {
        /// In the network namespace that the link names.
        case namespace(String)
        /// We may not know.
        case unknown
        /// It has ended.
        case gone
    }

    private static func place(of process: Int32) -> Place {
        var buffer = [UInt8](repeating: 0, count: 64)
        let count = buffer.withUnsafeMutableBytes {
            readlink("/proc/\(process)/ns/net", $0.baseAddress!.assumingMemoryBound(to: CChar.self), $0.count)
        }
        if count > 0 { return .namespace(String(decoding: buffer.prefix(count), as: UTF8.self)) }
        return errno == EACCES || errno == EPERM ? .unknown : .gone
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
