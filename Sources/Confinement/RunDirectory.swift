/// A new /run for the command: a file system of its own, with only those entries of the node's that hold no socket.
///
/// Covering single sockets would not last: a daemon that restarts removes its socket and binds a new one, and removing
/// a file takes away what another mount namespace had mounted over it. In a directory that is not there at all,
/// nothing can appear.
struct RunDirectory {
    /// Entries that are never kept, though no socket may lie in them at the moment.
    static let hiddenNames: Set<String> = [
        "avahi-daemon", "buildkit", "containerd", "containers", "credentials", "crio", "cups", "dbus", "docker", "host",
        "incus", "k3s", "libvirt", "lxd", "mysqld", "netns", "nscd", "podman", "postgresql", "runc", "sandgate",
        "screen", "snapd", "systemd", "tmux", "udev", "user", "utrace",
    ]
    /// How deep an entry is searched for sockets; one that goes deeper is not kept.
    private static let depth = 6

    /// The directory that is replaced.
    let path: String
    /// The entries that are kept, bound from the node's directory.
    let kept: [(name: String, kind: FileSystem.Kind)]

    /// `nil` when `path` is no directory of its own (`/var/run` mostly is a link).
    init?(_ path: String) {
        guard FileSystem.kind(of: path) == .directory else { return nil }
        self.path = path
        kept = FileSystem.entries(in: path).compactMap { name, kind in
            switch kind {
            case .file, .link: (name, kind!)
            case .directory:
                Self.hiddenNames.contains(name) || !Self.isHarmless("\(path)/\(name)", depth: Self.depth)
                    ? nil : (name, .directory)
            case .socket, .other, nil: nil
            }
        }
    }

    private static func isHarmless(_ directory: String, depth: Int) -> Bool {
        FileSystem.entries(in: directory).allSatisfy { name, kind in
            switch kind {
            case .socket, .other: false
            case .directory: depth > 1 && isHarmless("\(directory)/\(name)", depth: depth - 1)
            case .file, .link, nil: true
            }
        }
    }

    /// Whether the node's file at `path` is still to be seen in the new directory.
    func keeps(_ path: String) -> Bool {
        guard let first = relative(path)?.split(separator: "/").first else { return false }
        return kept.contains { $0.name == first }
    }

    /// What of `path` comes after the directory; `nil` when it lies elsewhere.
    func relative(_ path: String) -> String? {
        FileSystem.isBelow(path, self.path) ? String(path.dropFirst(self.path.count + 1)) : nil
    }

    /// Builds the new directory at `stage` and moves it into place. `files` are empty files to make in it, by their
    /// final paths, for something to be mounted on.
    func steps(stage: String, files: [String]) -> [MountStep] {
        var steps = [
            MountStep(.directory(stage, mode: 0o755)),
            MountStep(
                .mount(
                    type: "tmpfs",
                    target: stage,
                    flags: MountFlag.noSetUserID | MountFlag.noDevices,
                    options: "mode=755"
                )
            ),
        ]
        for (name, kind) in kept {
            let source = "\(path)/\(name)"
            let target = "\(stage)/\(name)"
            switch kind {
            case .file:
                steps.append(MountStep(.file(target, mode: 0o600)))
                steps.append(MountStep(.bind(source: source, target: target), tolerating: [Self.noEntry]))
            case .directory:
                steps.append(MountStep(.directory(target, mode: 0o755)))
                steps.append(
                    MountStep(.bind(source: source, target: target, recursive: true), tolerating: [Self.noEntry])
                )
            case .link:
                guard let destination = FileSystem.destination(of: source) else { continue }
                steps.append(MountStep(.link(target: destination, at: target)))
            case .socket, .other: continue
            }
        }
        return steps + makeFiles(files, stage: stage) + [MountStep(.move(source: stage, target: path))]
    }

    private func makeFiles(_ files: [String], stage: String) -> [MountStep] {
        var steps: [MountStep] = []
        for file in files {
            guard let relative = relative(file), !keeps(file) else { continue }
            var directory = stage
            for component in relative.split(separator: "/").dropLast() {
                directory += "/\(component)"
                steps.append(MountStep(.directory(directory, mode: 0o755)))
            }
            steps.append(MountStep(.file("\(stage)/\(relative)", mode: 0o644)))
        }
        return steps
    }

    private static let noEntry: CInt = 2  // ENOENT: a file that went away meanwhile
}
