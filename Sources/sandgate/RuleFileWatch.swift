import Audit
import CLinux
import Glibc
import Sandboxes

/// Notices when files of rules have changed: written in place, or replaced by another file of the name.
struct RuleFileWatch {
    /// One element for each change, or several changes in a row.
    let changes: AsyncStream<Void>

    /// For so long a file must not have changed.
    private static let settlingMicroseconds: UInt32 = 250_000

    /// Watches the files' directories; files that other programs replace are not the same file any more. What is read when
    /// this has returned is not missed when it changes.
    init(_ files: [String]) {
        let (changes, continuation) = AsyncStream.makeStream(of: Void.self, bufferingPolicy: .bufferingNewest(1))
        self.changes = changes
        guard !files.isEmpty else { return }
        let directories = Set(files.map { path in path.lastIndex(of: "/").map { String(path[...$0]) } ?? "." })
        let watch = DirectoryWatch(directories: directories)
        let atBeginning = files.map(Fingerprint.init)
        DetachedThread.start {
            var known = atBeginning
            while true {
                watch.wait()
                var current = files.map(Fingerprint.init)
                guard current != known else { continue }
                // A file that is written in place is empty first, and half written then: none of its rules may go
                // for that.
                var before: [Fingerprint]
                repeat {
                    before = current
                    usleep(Self.settlingMicroseconds)
                    current = files.map(Fingerprint.init)
                } while current != before
                known = current
                continuation.yield()
            }
        }
    }

    /// By what a file is told from what it was.
    private struct Fingerprint: Equatable {
        let inode: UInt64
        let size: Int64
        let modified: Int64
        let modifiedNanoseconds: Int64

        init(_ path: String) {
            var status = stat()
            let isThere = lstat(path, &status) == 0
            inode = isThere ? UInt64(status.st_ino) : 0
            size = isThere ? Int64(status.st_size) : -1
            modified = Int64(status.st_mtim.tv_sec)
            modifiedNanoseconds = Int64(status.st_mtim.tv_nsec)
        }
    }
}
