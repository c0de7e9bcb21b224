internal import Glibc

/// A per-namespace kernel setting below `/proc/sys/net`. The kernel shows every thread the settings of the thread's own
/// namespace there, so nothing global is touched from inside ``NetworkNamespace/enter(_:)``.
struct NetworkSetting {
    /// The path below `/proc/sys/net`, as sysctl(8) would write it with dots.
    let path: String
    /// The text to write.
    let value: String

    /// Writes the setting in the calling thread's namespace.
    /// - Returns: `false` when the kernel has no such setting, as without IPv6.
    @discardableResult
    func apply() throws(NamespaceError) -> Bool {
        let descriptor = open("/proc/sys/net/\(path)", O_WRONLY | O_CLOEXEC)
        if descriptor < 0 && errno == ENOENT { return false }
        guard descriptor >= 0 else { throw NamespaceError("cannot open /proc/sys/net/\(path)", errno: errno) }
        defer { close(descriptor) }
        let written = value.withCString { write(descriptor, $0, value.utf8.count) }
        guard written == value.utf8.count else {
            throw NamespaceError("cannot write /proc/sys/net/\(path)", errno: errno)
        }
        return true
    }
}
