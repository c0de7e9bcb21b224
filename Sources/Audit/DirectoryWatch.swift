import Glibc

/// Waits until something in a directory has changed (inotify(7)). Where the kernel gives no watch, and for changes it
/// does not tell of, it wakes regularly.
public final class DirectoryWatch: Sendable {
    private let descriptor: CInt
    private let isWatching: Bool

    /// Watches the directories; a path that cannot be watched is looked at regularly.
    public init(directories: Set<String>) {
        let descriptor = inotify_init1(CInt(IN_CLOEXEC) | CInt(IN_NONBLOCK))
        let events = UInt32(IN_MODIFY | IN_CREATE | IN_MOVED_TO)
        self.descriptor = descriptor
        isWatching = descriptor >= 0 && directories.allSatisfy { inotify_add_watch(descriptor, $0, events) >= 0 }
    }

    deinit {
        if descriptor >= 0 { close(descriptor) }
    }

    /// Returns after a change or a while: 2 s where changes are told, 0.25 s where not.
    public func wait() {
        guard isWatching else {
            usleep(250_000)
            return
        }
        var request = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
        guard poll(&request, 1, 2_000) > 0 else { return }
        // What changed does not matter; the readers find out.
        var events = [UInt8](repeating: 0, count: 4_096)
        while read(descriptor, &events, events.count) > 0 {}
    }
}
