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
        guard clinux_unshare_user() == 0 else {
            throw NamespaceError(
                "cannot make a user namespace",
                errno: errno,
                detail: UserNamespaceRefusal.cause(errno)
            )
        }
        try write("deny", to: "/proc/self/setgroups")
        try write("\(group) \(group) 1\n", to: "/proc/self/gid_map")
        try write("\(user) \(user) 1\n", to: "/proc/self/uid_map")
        let descriptor = open("/proc/self/ns/user", O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { throw NamespaceError("cannot open a user namespace", errno: errno) }
        return UserNamespace(owning: descriptor)
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
    /// A sentence for a person, or empty when the cause is not known.
    static func cause(_ error: CInt, setting: (String) -> String? = setting) -> String {
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
            } else {
                "a security module or a chroot forbids it; run sandgate as root instead"
            }
        default: ""
        }
    }

    private static func setting(_ path: String) -> String? {
        guard let text = contents(of: "/proc/sys/\(path)") else { return nil }
        return text.split(whereSeparator: \.isWhitespace).first.map(String.init)
    }

    /// Whether this process runs under a seccomp filter.
    private static var isFiltered: Bool {
        contents(of: "/proc/self/status")?.split(separator: "\n").contains("Seccomp:\t2") ?? false
    }

    private static func contents(of path: String) -> String? {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return nil }
        defer { close(descriptor) }
        var buffer = [UInt8](repeating: 0, count: 8192)
        let count = read(descriptor, &buffer, buffer.count)
        return count < 0 ? nil : String(decoding: buffer[..<count], as: UTF8.self)
    }
}
