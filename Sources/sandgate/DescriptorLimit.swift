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

    /// Raises both limits as far as a process with privilege may: a sandbox takes some 15 descriptors, each of its
    /// connections two to six. Throws when that leaves too few to serve at all: NIO ends the process when its threads lack
    /// them.
    static func raiseForMany() throws {
        var limit = rlimit()
        limit.rlim_cur = rlim_t(maximum())
        limit.rlim_max = limit.rlim_cur
        if setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) != 0 { _ = raise() }
        guard getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 else { return }
        // NIO has a thread for each processor, which takes three.
        let least = 64 + 3 * sysconf(CInt(_SC_NPROCESSORS_ONLN))
        guard limit.rlim_cur >= rlim_t(least) else {
            throw SetupError("at most \(limit.rlim_cur) files may be open here: expected \(least) or more (ulimit -Hn)")
        }
    }

    /// fs.nr_open: the most that the kernel lets a limit be.
    private static func maximum() -> Int {
        let text = (try? PolicyFile.read("/proc/sys/fs/nr_open")) ?? []
        return Int(String(decoding: text.filter { $0 > 0x20 }, as: UTF8.self)) ?? 1 << 20
    }
}
