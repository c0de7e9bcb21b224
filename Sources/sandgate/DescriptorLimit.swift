import Glibc

/// How many files this process may have open. A connection takes two descriptors and, while it is busy, two pipes.
enum DescriptorLimit {
    /// Raises the soft limit to the hard one; returns the soft limit there was, for the command.
    static func raise() -> CInt? {
        var limit = rlimit()
        guard getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0, limit.rlim_cur < limit.rlim_max
        else {
            return nil
        }
        let before = limit.rlim_cur
        limit.rlim_cur = limit.rlim_max
        guard setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 else { return nil }
        return CInt(clamping: before)
    }
}
