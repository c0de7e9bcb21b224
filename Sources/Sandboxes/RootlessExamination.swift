import CLinux
import Glibc
import Namespaces
import Nftables
import Reactor

/// Tries what the kernel allows an ordinary user: namespaces in a user namespace of their own.
public enum RootlessExamination {
    private static let name = "user namespaces"

    /// The switches that distributions have for it, what they are when it is forbidden, and what to write instead.
    private static let switches: [(path: String, forbids: String, remedy: String)] =
        [
            (
                "/proc/sys/kernel/unprivileged_userns_clone", "0",
                "sysctl -w kernel.unprivileged_userns_clone=1"
            ),
            (
                "/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1",
                "give sandgate an AppArmor profile with userns, or sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"
            ),
        ]
        + NamespaceLimit.allCases.map { limit in
            let path = "/proc/sys/" + limit.setting.split(separator: ".").joined(separator: "/")
            return (path, "0", "sysctl -w \(limit.setting)=15000")
        }

    /// What an ordinary user may do; as root, tried as `nobody`.
    public static func findings() -> [Finding] {
        var step: CInt = 0
        let failure = clinux_probe_user_namespace(65_534, &step)
        guard failure != 0 else {
            return [Finding(name, .works, "an ordinary user can have network, mount, pid and IPC namespaces")]
                + enforcement()
        }
        let what = [
            "a child process", "another user", "a user namespace", "a user's identity in it", "other namespaces in it",
        ]
        let cause = String(cString: strerror(failure))
        let subject = what.indices.contains(Int(step)) ? what[Int(step)] : "it"
        let remedies = switches.filter { value(of: $0.path) == $0.forbids }.map(\.remedy)
        return [
            Finding(
                name,
                .missing,
                "an ordinary user cannot have \(subject): \(cause)",
                remedy: remedies.isEmpty
                    ? "allow unshare(CLONE_NEWUSER): a seccomp filter or a security module forbids it"
                    : remedies.joined(separator: "; ")
            )
        ]
    }

    /// Makes what a run without root makes, as the user who asks.
    private static func enforcement() -> [Finding] {
        let network: RootlessNetwork
        do {
            network = try RootlessNetwork()
            let inside = try NamespaceAccess.attendant(network).open(ports: Sandbox.ports, refusals: .init())
            defer {
                inside.abandon()
            }
            try inside.table.installRedirects()
        } catch {
            let remedy = "see what run as root needs: sudo sandgate doctor"
            return [
                Finding("enforcement", .missing, "\(error)", remedy: remedy),
                Finding("confinement", .untried, "there is no network to confine a command to"),
            ]
        }
        return [
            Finding("enforcement", .works, "a table, listeners and redirects were made in them"),
            KernelExamination.confined(in: network.namespace, of: network.userNamespace),
        ]
    }

    private static func value(of path: String) -> String? {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return nil }
        defer { close(descriptor) }
        var bytes = [UInt8](repeating: 0, count: 64)
        let count = read(descriptor, &bytes, bytes.count)
        return String(decoding: bytes.prefix(max(count, 0)).filter { $0 > 0x20 }, as: UTF8.self)
    }
}
