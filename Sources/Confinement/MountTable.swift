internal import CLinux
internal import Glibc

/// The mounts of this thread's mount namespace, and what is to be seen through more of them than one: what is hidden in one
/// place lies open in another where the same file system is mounted again, as in the root directory of a chroot.
struct MountTable {
    /// All of them, in the kernel's order.
    let mounts: [MountedFileSystem]

    /// Reads the table.
    /// - Throws: when it cannot be read. Without it nobody knows what is to be hidden.
    static func current() throws(ConfinementError) -> MountTable {
        let path = "/proc/thread-self/mountinfo"
        let lines = try FileSystem.contents(of: path).split(separator: UInt8(ascii: "\n"))
        guard !lines.isEmpty else { throw ConfinementError("cannot read \(path)", errno: ENODATA) }
        return MountTable(mounts: lines.compactMap(MountedFileSystem.init(line:)))
    }

    /// The mount that `path`, without symbolic links, lies in. Of what does not exist the order of the table tells.
    func mount(of path: String) -> MountedFileSystem? {
        let identifier = clinux_mount_of(path)
        return (identifier < 0 ? nil : mounts.first { $0.identifier == identifier })
            ?? mounts.last { FileSystem.isBelow(path, $0.point) }
    }

    /// Whether `path` leads into a mount, and to none that lies on top of it. What cannot be looked up leads nowhere, for the
    /// command as for us.
    func isVisible(_ path: String, through mount: MountedFileSystem) -> Bool {
        let identifier = clinux_mount_of(path)
        return identifier < 0 ? errno == ENOSYS : identifier == mount.identifier
    }

    /// Other names of what lies at `path`, without symbolic links: through other mounts of its file system.
    func aliases(of path: String) -> [String] {
        guard let own = mount(of: path) else { return [] }
        let inside = own.inside(path)
        return mounts.compactMap { mount in
            guard mount.device == own.device, mount.identifier != own.identifier, let place = mount.outside(inside),
                isVisible(place, through: mount)
            else { return nil }
            return place
        }
    }

    /// `path` and its other names.
    func places(of path: String) -> [String] { [path] + aliases(of: path) }

    /// What shows a directory, a part of it, or what is mounted in it, from outside of it: the outermost paths, sorted.
    func places(showing directory: String) -> [String] {
        let mounted = mounts.filter { FileSystem.isBelow($0.point, directory) && !$0.isOfTheKernel }
            .map { ($0.device, $0.root) }
        let own = mount(of: directory).map { [($0.device, $0.inside(directory))] } ?? []
        var found: Set<String> = []
        for (device, inside) in own + mounted {
            for mount in mounts where mount.device == device && !FileSystem.isBelow(mount.point, directory) {
                let part = FileSystem.isBelow(mount.root, inside) ? mount.point : nil
                guard let place = mount.outside(inside) ?? part, !FileSystem.isBelow(place, directory),
                    isVisible(place, through: mount)
                else { continue }
                found.insert(place)
            }
        }
        return found.filter { place in !found.contains { $0 != place && FileSystem.isBelow(place, $0) } }.sorted()
    }
}
