internal import CLinux
internal import FilePrimitives
internal import Glibc

/// The mounts of this thread's mount namespace, and what is to be seen through more of them than one: what is hidden in one
/// place lies open in another where the same file system is mounted again, as in the root directory of a chroot.
struct MountTable {
    /// All of them, in the kernel's order.
    let mounts: [MountedFileSystem]

    /// Reads the table.
    /// - Throws: when it cannot be read, all of it. Without it nobody knows what is to be hidden.
    static func current() throws(ConfinementError) -> MountTable {
        let path = "/proc/thread-self/mountinfo"
        guard let table = MountTable(contents: try FileSystem.contents(of: path)) else {
            throw ConfinementError("cannot read \(path)", errno: EBADMSG)
        }
        return table
    }

    /// Reads the kernel's text; `nil` when there is anything in it that is no mount.
    init?(contents: [UInt8]) {
        let lines = contents.split(separator: UInt8(ascii: "\n"))
        mounts = lines.compactMap(MountedFileSystem.init(line:))
        if mounts.isEmpty || mounts.count != lines.count { return nil }
    }

    /// The mount that `path`, without symbolic links, lies in. Of what does not exist the order of the table tells.
    func mount(of path: SystemString) -> MountedFileSystem? {
        let identifier = clinux_mount_of(path.cString)
        return (identifier < 0 ? nil : mounts.first { $0.identifier == identifier })
            ?? mounts.last { path.isBelow($0.point) }
    }

    /// Whether `path` leads into a mount, and to none that lies on top of it. What cannot be looked up leads nowhere, for the
    /// command as for us.
    func isVisible(_ path: SystemString, through mount: MountedFileSystem) -> Bool {
        let identifier = clinux_mount_of(path.cString)
        return identifier < 0 ? errno == ENOSYS : identifier == mount.identifier
    }

    /// Other names of what lies at `path`, without symbolic links: through other mounts of its file system.
    func aliases(of path: SystemString) -> [SystemString] {
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
    func places(of path: SystemString) -> [SystemString] { [path] + aliases(of: path) }

    /// What shows a directory, a part of it, or what is mounted in it, from outside of it: the outermost paths, sorted.
    func places(showing directory: SystemString) -> [SystemString] {
        let mounted = mounts.filter { $0.point.isBelow(directory) && !$0.isOfTheKernel }
            .map { ($0.device, $0.root) }
        let own = mount(of: directory).map { [($0.device, $0.inside(directory))] } ?? []
        var found: Set<SystemString> = []
        for (device, inside) in own + mounted {
            for mount in mounts where mount.device == device && !mount.point.isBelow(directory) {
                let part = mount.root.isBelow(inside) ? mount.point : nil
                guard let place = mount.outside(inside) ?? part, !place.isBelow(directory),
                    isVisible(place, through: mount)
                else { continue }
                found.insert(place)
            }
        }
        return found.filter { place in !found.contains { $0 != place && place.isBelow($0) } }.sorted()
    }
}
