internal import FilePrimitives
internal import Glibc

/// A directory where programs keep sockets, rebuilt for the command: a file system of its own, with those files of the
/// node's that are no way out. For /run, and without root for ~/.ssh.
///
/// Covering single sockets would not last: a daemon that restarts removes its socket and binds a new one, and removing
/// a file takes away what another mount namespace had mounted over it. So the node's directories are not there at all,
/// but new ones with the same names, and the node's files are mounted in them one by one: what a daemon makes later does
/// not appear here.
struct RebuiltDirectory {
    /// Entries of /run that are never kept, though no socket may lie in them at the moment.
    static let hiddenInRun: Set<SystemString> = [
        "avahi-daemon", "buildkit", "containerd", "containers", "credentials", "crio", "cups", "dbus", "docker", "host",
        "incus", "k3s", "libvirt", "lxd", "mysqld", "netns", "nscd", "podman", "postgresql", "runc", "sandgate",
        "screen", "snapd", "systemd", "tmux", "udev", "user", "utrace",
    ]
    /// How deep a directory is looked into, and for how many entries; one that holds more is not kept.
    private static let depth = 6
    private static let capacity = 256

    /// Something that is kept, by its path in the directory.
    struct Entry: Equatable {
        /// What is made for it.
        enum Kind: Equatable {
            /// A mount of the node's file.
            case file
            /// A link to the same place.
            case link(to: SystemString)
            /// A new directory.
            case directory(mode: UInt32)
        }

        let path: SystemString
        let kind: Kind
    }

    /// The directory that is replaced.
    let path: SystemString
    /// What is kept of it, directories before what is in them.
    let kept: [Entry]

    private let mode: UInt32

    /// `nil` when `path` is no directory of its own (`/var/run` mostly is a link). `others` are mount points that show no
    /// files; what holds one is not kept.
    init?(
        _ path: SystemString,
        hiding hidden: Set<SystemString> = Self.hiddenInRun,
        others: Set<SystemString> = []
    ) {
        guard FileSystem.kind(of: path) == .directory, let mode = FileSystem.mode(of: path) else { return nil }
        self.path = path
        self.mode = mode
        // One that cannot be listed is empty for the command.
        kept = (FileSystem.entriesIfReadable(in: path) ?? []).flatMap { name, kind in
            hidden.contains(name) ? [] : Self.entry(name, kind, in: path, without: others, depth: Self.depth) ?? []
        }
    }

    /// An entry and what is below it; `nil` when it is, or holds, what is not to be kept.
    private static func entry(
        _ name: SystemString,
        _ kind: FileKind?,
        in root: SystemString,
        without others: Set<SystemString>,
        depth: Int
    ) -> [Entry]? {
        let path: SystemString = "\(root)/\(name)"
        if others.contains(path) { return nil }
        switch kind {
        case nil: return []  // gone meanwhile
        case .socket, .other: return nil
        // Something else may be mounted on it, as container engines mount sockets.
        case .file: return FileSystem.kind(of: path) == .file ? [Entry(path: name, kind: .file)] : nil
        case .link: return FileSystem.destination(of: path).map { [Entry(path: name, kind: .link(to: $0))] } ?? []
        case .directory:
            // One that cannot be read may hold anything, and be passed by whoever knows the names in it.
            guard depth > 0, let mode = FileSystem.mode(of: path), let inside = FileSystem.entriesIfReadable(in: path)
            else { return nil }
            var entries = [Entry(path: name, kind: .directory(mode: mode))]
            for (child, kind) in inside {
                guard let more = entry("\(name)/\(child)", kind, in: root, without: others, depth: depth - 1) else {
                    return nil
                }
                entries += more
                guard entries.count <= capacity else { return nil }
            }
            return entries
        }
    }

    /// Whether something of the node's at `path` is still to be seen in the new directory.
    func keeps(_ path: SystemString) -> Bool {
        guard let relative = relative(path) else { return false }
        return kept.contains { $0.path == relative }
    }

    /// What of `path` comes after the directory; `nil` when it lies elsewhere.
    func relative(_ path: SystemString) -> SystemString? {
        path.isBelow(self.path) ? path.dropFirst(self.path.bytes.count + 1) : nil
    }

    /// Builds the new directory at `stage` and moves it into place. `files` are empty files to make in it, by their
    /// final paths, for something to be mounted on.
    func steps(stage: SystemString, files: [SystemString]) -> [MountStep] {
        var steps = [
            MountStep(.directory(stage, mode: 0o755)),
            MountStep(
                .mount(
                    type: "tmpfs",
                    target: stage,
                    flags: MountFlag.noSetUserID | MountFlag.noDevices,
                    options: "mode=\(String(mode, radix: 8))"
                )
            ),
        ]
        for entry in kept {
            let target: SystemString = "\(stage)/\(entry.path)"
            switch entry.kind {
            case .file:
                steps.append(MountStep(.file(target, mode: 0o600)))
                // A file that went away meanwhile, or that this user may not look at.
                let bind = MountStep.Operation.bind(source: "\(path)/\(entry.path)", target: target)
                steps.append(MountStep(bind, tolerating: [ENOENT, EACCES]))
            case .link(let destination):
                steps.append(MountStep(.link(target: destination, at: target)))
            case .directory(let mode):
                steps.append(MountStep(.directory(target, mode: mode)))
            }
        }
        return steps + makeFiles(files, stage: stage) + [MountStep(.move(source: stage, target: path))]
    }

    private func makeFiles(_ files: [SystemString], stage: SystemString) -> [MountStep] {
        var steps: [MountStep] = []
        for file in files {
            guard let relative = relative(file), !keeps(file) else { continue }
            steps += MountStep.directories(below: stage, towards: relative)
            steps.append(MountStep(.file("\(stage)/\(relative)", mode: 0o644)))
        }
        return steps
    }
}
