import Glibc
import Namespaces

/// What is needed of the kernel, checked before anything is made: a missing capability is named, never worked around.
enum Privileges {
    /// A capability, by its bit in linux/capability.h.
    private enum Capability: Int {
        case setpcap = 8
        case netAdmin = 12
        case netRaw = 13
        case sysPtrace = 19
        case sysAdmin = 21

        var name: String {
            switch self {
            case .setpcap: "CAP_SETPCAP"
            case .netAdmin: "CAP_NET_ADMIN"
            case .netRaw: "CAP_NET_RAW"
            case .sysPtrace: "CAP_SYS_PTRACE"
            case .sysAdmin: "CAP_SYS_ADMIN"
            }
        }
    }

    /// For `run` as root: to take capabilities from the command; addresses, routes and nftables; namespaces and mounts.
    static func requireForRun() throws {
        let missing = try missing([.setpcap, .netAdmin, .sysAdmin])
        guard !missing.isEmpty else { return }
        // Root without CAP_SETFCAP cannot do without privilege either, as others can.
        let instead = UserNamespace.mayMapRoot ? "or try --rootless" : "or run it as another user than root"
        throw SetupError("missing \(missing): the sandbox cannot be set up without, \(instead)")
    }

    /// For `serve`: nftables; ICMP errors of the relay; whose the processes in a namespace are, and who asks; namespaces.
    static func requireForServe() throws {
        let missing = try missing([.netAdmin, .netRaw, .sysPtrace, .sysAdmin])
        guard missing.isEmpty else { throw SetupError("missing \(missing): sandboxes cannot be guarded without") }
    }

    /// For `sidecar`: nftables and the marks of its sockets; ICMP errors of the relay.
    static func requireForSidecar() throws {
        let missing = try missing([.netAdmin, .netRaw])
        guard missing.isEmpty else { throw SetupError("missing \(missing): this network cannot be guarded without") }
    }

    private static func missing(_ needed: [Capability]) throws -> String {
        let effective = try effectiveCapabilities()
        return needed.filter { effective & 1 << UInt64($0.rawValue) == 0 }.map(\.name).joined(separator: ", ")
    }

    private static func effectiveCapabilities() throws -> UInt64 {
        let status = String(decoding: try PolicyFile.read("/proc/self/status"), as: UTF8.self)
        for line in status.split(separator: "\n") where line.hasPrefix("CapEff:") {
            if let set = UInt64(line.dropFirst("CapEff:".count).drop { $0 == "\t" || $0 == " " }, radix: 16) {
                return set
            }
        }
        throw SetupError("cannot read the capabilities of this process from /proc/self/status")
    }
}
