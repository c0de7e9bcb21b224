import Glibc
import Namespaces

/// What `run` needs of the kernel as root, checked before anything is made: a missing capability is named, never worked around.
enum Privileges {
    /// What for, and the bit of linux/capability.h.
    private static let needed: [(name: String, bit: Int)] = [
        ("CAP_SETPCAP", 8),  // to take capabilities from the command
        ("CAP_NET_ADMIN", 12),  // addresses, routes, nftables
        ("CAP_SYS_ADMIN", 21),  // namespaces and mounts
    ]

    static func requireAll() throws {
        let effective = try effectiveCapabilities()
        let missing = needed.filter { effective & 1 << UInt64($0.bit) == 0 }.map(\.name)
        guard missing.isEmpty else {
            // Root without CAP_SETFCAP cannot do without privilege either, as others can.
            let instead = UserNamespace.mayMapRoot ? "or try --rootless" : "or run it as another user than root"
            throw SetupError(
                "missing \(missing.joined(separator: ", ")): the sandbox cannot be set up without, \(instead)"
            )
        }
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
