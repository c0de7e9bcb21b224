internal import CLinux
internal import Glibc

/// A user namespace, held by a descriptor: what makes an ordinary user the owner of network namespaces.
public final class UserNamespace: Sendable {
    /// The descriptor of the namespace (`/proc/…/ns/user`), close-on-exec, owned by this object.
    public let descriptor: CInt

    /// Takes over a descriptor.
    public init(owning descriptor: CInt) {
        self.descriptor = descriptor
    }

    deinit {
        close(descriptor)
    }

    /// Moves this process, which must have one thread, into a new user namespace, where it has every capability. Its
    /// ids stay what they are; no others exist there.
    public static func enterNew() throws(NamespaceError) -> UserNamespace {
        let (user, group) = (geteuid(), getegid())
        // Asked before: in the new namespace it has all of them.
        let isRootWithoutRight = user == 0 && !mayMapRoot
        guard clinux_unshare_user() == 0 else {
            throw NamespaceError(
                "cannot make a user namespace",
                errno: errno,
                detail: UserNamespaceRefusal.cause(errno)
            )
        }
        try write("deny", to: "/proc/self/setgroups")
        try write("\(group) \(group) 1\n", to: "/proc/self/gid_map")
        do {
            try write("\(user) \(user) 1\n", to: "/proc/self/uid_map")
        } catch let error where isRootWithoutRight && error.errno == EPERM {
            throw NamespaceError(error.operation, errno: error.errno, detail: UserNamespaceRefusal.rootWithoutRight)
        }
        let descriptor = open("/proc/self/ns/user", O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { throw NamespaceError("cannot open a user namespace", errno: errno) }
        return UserNamespace(owning: descriptor)
    }

    /// Whether this process has CAP_SETFCAP, without which nobody takes uid 0 along into a user namespace
    /// (user_namespaces(7), since Linux 5.12): files could be given capabilities that are root's outside.
    public static var mayMapRoot: Bool {
        let status = KernelSetting.contents(of: "/proc/self/status") ?? ""
        let line = status.split(separator: "\n").first { $0.hasPrefix("CapEff:") }
        let held = line.flatMap { UInt64($0.dropFirst(7).drop(while: \.isWhitespace), radix: 16) } ?? 0
        return held >> 31 & 1 == 1
    }

    private static func write(_ text: String, to path: String) throws(NamespaceError) {
        let descriptor = open(path, O_WRONLY | O_CLOEXEC)
        var error = errno
        if descriptor >= 0 {
            defer { close(descriptor) }
            if text.withCString({ Glibc.write(descriptor, $0, text.utf8.count) }) == text.utf8.count { return }
            error = errno
        }
        throw NamespaceError("cannot write \(path)", errno: error, detail: UserNamespaceRefusal.cause(error))
    }
}

/// Why a kernel or distribution refuses user namespaces to an ordinary user, and what its administrator can do.
enum UserNamespaceRefusal {
    /// For root without CAP_SETFCAP.
    static let rootWithoutRight = """
        root takes CAP_SETFCAP for it, which is missing: run sandgate as another user, or in a container with \
        --cap-add SETFCAP
        """

    /// A sentence for a person, or empty when the cause is not known.
    static func cause(
        _ error: CInt,
        isRoot: Bool = geteuid() == 0,
        setting: (String) -> String? = KernelSetting.value
    ) -> String {
        switch error {
        case ENOSPC where setting("user/max_user_namespaces") == "0":
            "user namespaces are switched off here: sudo sysctl user.max_user_namespaces=15000"
        case ENOSPC:
            "user.max_user_namespaces or the depth of 32 is reached"
        case ENOSYS, EINVAL:
            "this kernel was built without user namespaces (CONFIG_USER_NS)"
        case EPERM where setting("kernel/unprivileged_userns_clone") == "0":
            "the distribution keeps user namespaces to root: sudo sysctl kernel.unprivileged_userns_clone=1"
        case EPERM, EACCES:
            if setting("kernel/apparmor_restrict_unprivileged_userns") == "1" {
                """
                AppArmor keeps user namespaces to programs with a profile: give sandgate one that has `userns,`, \
                or sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0
                """
            } else if isFiltered {
                """
                a system call filter forbids it, as in most containers: start the container with \
                --security-opt seccomp=unconfined, or run sandgate outside of it
                """
            } else if isRoot {
                "a security module or a chroot forbids it"
            } else {
                "a security module or a chroot forbids it; run sandgate as root instead"
            }
        default: ""
        }
    }

    /// Whether this process runs under a seccomp filter.
    private static var isFiltered: Bool {
        KernelSetting.contents(of: "/proc/self/status")?.split(separator: "\n").contains("Seccomp:\t2") ?? false
    }
}
