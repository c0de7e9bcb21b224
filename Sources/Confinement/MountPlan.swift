internal import Glibc

/// What the command sees of the node's file system: all of it, but for the ways around its network.
///
/// * `/proc` is new, for its own processes. What reaches beyond them is covered or read-only: a command that runs as
///   root could otherwise write `/proc/sys/kernel/core_pattern`, which the kernel executes outside. A partly covered
///   /proc also keeps a user namespace inside from mounting a fresh one (the kernel's `mnt_already_visible`), where the
///   same files would lie open.
/// * `/sys` is new, so it shows the command's own network devices, and read-only with the control groups below it.
/// * `/run` is new, and without root `~/.ssh` (``RebuiltDirectory``); Unix sockets elsewhere are covered
///   (``OutsideSockets``).
/// * `/etc/resolv.conf` is ours.
/// * `/dev/shm`, `/dev/mqueue` and the directories of X sockets are new and empty. So is `/dev/pts`: of the user's
///   terminals the command sees its own, as `/dev/console`.
/// * Mounts made later, here or on the node, stay where they were made.
///
/// Without root the node's own mounts are locked: they are covered where root would detach them. And the usher carries
/// the first steps out, in the user namespace that the network namespace belongs to, which `/sys` is mounted for; what
/// it mounted is locked for the command in turn.
struct MountPlan {
    /// What init carries out, in order.
    var steps: [MountStep] = []
    /// A temporary file system over the node's /proc, where parts are kept until they are moved into place.
    static let stage = "/proc"
    let mounts: [MountedFileSystem]
    let isPrivileged: Bool
    /// How many of the steps are the usher's.
    private(set) var usheredSteps = 0
    /// Sockets that lead outside and were not found, so not hidden either.
    private(set) var unplacedSockets: [String] = []
    /// Directories that are new for the command, or hidden.
    private static let renewed = ["/dev/mqueue", "/dev/shm", "/proc", "/run", "/sys", "/var/run"]

    /// Looks at the node's file system and plans.
    /// - Throws: when there is no /etc/resolv.conf that could be replaced.
    init(_ configuration: ConfinedCommand.Configuration) throws(ConfinementError) {
        mounts = MountedFileSystem.all()
        isPrivileged = configuration.userNamespace == nil
        let resolvConf = try Self.resolvConfTarget()
        steps.append(MountStep(.makePrivate))
        detachKernelFileSystems()
        openStage(resolvConf: configuration.resolvConf)
        for path in ["/run", "/var/run"] {
            guard let directory = RebuiltDirectory(path) else { continue }
            let name = path.split(separator: "/").joined(separator: "-")
            steps += directory.steps(stage: "\(Self.stage)/\(name)", files: [resolvConf])
        }
        coverSockets(near: [configuration.workingDirectory] + StartupFiles.homes())
        steps.append(MountStep(.bind(source: "\(Self.stage)/resolv.conf", target: resolvConf)))
        steps.append(MountStep(.makeReadOnly(resolvConf)))
        protect(configuration.readOnlyPaths)
        renewDevices()
        renewTerminals(standard: configuration.standardDescriptors)
        renewSys()
        steps.append(MountStep(.detach(Self.stage)))
        if !isPrivileged { usheredSteps = steps.count }
        renewQueues()
        renewProc()
    }

    /// Where /etc/resolv.conf really lies: its link's target, which may be missing if it is below /run, where we make
    /// it.
    private static func resolvConfTarget() throws(ConfinementError) -> String {
        let path = "/etc/resolv.conf"
        if let target = FileSystem.realPath(path) { return target }
        if let destination = FileSystem.destination(of: path) {
            let absolute = destination.hasPrefix("../") ? "/" + destination.dropFirst(3) : destination
            if absolute.hasPrefix("/run/") && !absolute.contains("/../") { return absolute }
        }
        throw ConfinementError("cannot replace \(path): it must exist to be replaced for the command", errno: ENOENT)
    }
}

// MARK: - Steps

extension MountPlan {
    private mutating func detachKernelFileSystems() {
        // Such as the /proc of a chroot.
        for mount in mounts where mount.isOfTheKernel {
            let isRenewed = ["/proc", "/sys"].contains { FileSystem.isBelow(mount.point, $0) }
            if isRenewed { continue }
            if isPrivileged {
                steps.append(MountStep(.detach(mount.point), tolerating: [EINVAL, ENOENT]))
            } else {
                coverDirectory(mount.point)
            }
        }
    }

    private mutating func openStage(resolvConf: [UInt8]) {
        steps.append(
            MountStep(.mount(type: "tmpfs", target: Self.stage, flags: MountFlag.harmless, options: "mode=755"))
        )
        steps.append(MountStep(.file("\(Self.stage)/resolv.conf", mode: 0o644, contents: resolvConf)))
    }

    private mutating func coverSockets(near: [String]) {
        let sockets = OutsideSockets(mounts: mounts, renewed: Self.renewed, near: near)
        unplacedSockets = sockets.unplaced
        sockets.paths.forEach { cover($0) }
        for name in [".X11-unix", ".ICE-unix", ".XIM-unix", ".font-unix"] {
            mountEmpty("/tmp/\(name)", mode: "1777")
        }
        // Where a server that restarts would bind anew.
        for (name, kind) in FileSystem.entries(in: "/tmp") where kind == .directory {
            let isForSockets = ["dbus-", "screen-", "ssh-", "tmux-", "uscreens"].contains { name.hasPrefix($0) }
            if isForSockets { mountEmpty("/tmp/\(name)", mode: "700") }
        }
    }

    /// A command that connects to a covered socket gets "connection refused"; one that reads a covered file, nothing.
    mutating func cover(_ path: String) {
        steps.append(
            MountStep(.bind(source: "/dev/null", target: path), tolerating: isPrivileged ? [ENOENT] : [ENOENT, EACCES])
        )
    }

    private mutating func mountEmpty(_ path: String, mode: String) {
        guard FileSystem.kind(of: path) == .directory else { return }
        let flags = MountFlag.noSetUserID | MountFlag.noDevices
        // One that went away meanwhile holds nothing.
        steps.append(
            MountStep(.mount(type: "tmpfs", target: path, flags: flags, options: "mode=\(mode)"), tolerating: [ENOENT])
        )
    }

    private mutating func protect(_ paths: [String]) {
        if !isPrivileged { pinAncestors(of: paths) }
        // A pipe or terminal that was given as a file has nothing to protect.
        for path in paths where [.file, .directory].contains(FileSystem.kind(of: path)) {
            if !isPrivileged, path.hasSuffix("/.ssh"), let directory = RebuiltDirectory(path, hiding: []) {
                // Where ssh's shared connections come and go.
                steps += directory.steps(stage: "\(Self.stage)/ssh-\(steps.count)", files: [])
            } else {
                // What lies in a hidden directory is not there for the command.
                steps.append(MountStep(.bind(source: path, target: path, recursive: true), tolerating: [ENOENT]))
            }
            steps.append(MountStep(.makeReadOnly(path), tolerating: [ENOENT]))
        }
    }

    /// Makes a mount of every directory on the way that this user could rename, to put another in its place: what is
    /// mounted on cannot be renamed.
    private mutating func pinAncestors(of paths: [String]) {
        var pinned: Set<String> = []
        for path in paths {
            var parent = ""
            for component in path.split(separator: "/").dropLast() {
                let directory = "\(parent)/\(component)"
                if access(parent.isEmpty ? "/" : parent, W_OK) == 0 { pinned.insert(directory) }
                parent = directory
            }
        }
        // Outer ones first.
        for directory in pinned.sorted() {
            steps.append(MountStep(.bind(source: directory, target: directory, recursive: true), tolerating: [ENOENT]))
        }
    }

    private mutating func renewDevices() {
        mountEmpty("/dev/shm", mode: "1777")
        // Memory, the kernel's log, the hypervisor's socket, invented keystrokes.
        for name in ["mem", "kmem", "port", "kmsg", "vsock", "vhost-vsock", "vhost-net", "uinput", "uhid"] {
            if FileSystem.kind(of: "/dev/\(name)") == .other { cover("/dev/\(name)") }
        }
    }

    private mutating func renewQueues() {
        guard mounts.contains(where: { $0.point == "/dev/mqueue" }) else { return }
        steps.append(MountStep(.mount(type: "mqueue", target: "/dev/mqueue", flags: MountFlag.harmless)))
    }

    private mutating func renewSys() {
        guard FileSystem.kind(of: "/sys") == .directory else { return }
        let groups = "/sys/fs/cgroup"
        let hasGroups = mounts.contains { $0.point == groups }
        if hasGroups {
            steps.append(MountStep(.directory("\(Self.stage)/cgroup", mode: 0o755)))
            steps.append(MountStep(.bind(source: groups, target: "\(Self.stage)/cgroup", recursive: true)))
        }
        steps.append(MountStep(.detach("/sys"), tolerating: [EINVAL]))
        // A container's masked /sys may not be mounted again without root. It then stays, read-only: the node's devices
        // are to be seen in it, and nothing else.
        steps.append(
            MountStep(
                .mount(type: "sysfs", target: "/sys", flags: MountFlag.harmless | MountFlag.readOnly),
                tolerating: isPrivileged ? [] : [EPERM]
            )
        )
        if hasGroups { steps.append(MountStep(.move(source: "\(Self.stage)/cgroup", target: groups))) }
        coverDirectory("/sys/firmware")
        steps.append(MountStep(.makeReadOnly("/sys")))
    }

    private mutating func renewProc() {
        steps.append(MountStep(.detach("/proc"), tolerating: [EINVAL]))
        steps.append(MountStep(.mount(type: "proc", target: "/proc", flags: MountFlag.harmless)))
        for name in ["bus", "fs", "irq", "sys", "sysrq-trigger", "mtrr"] {
            let path = "/proc/\(name)"
            steps.append(MountStep(.bind(source: path, target: path), tolerating: [ENOENT]))
            steps.append(MountStep(.makeReadOnly(path), tolerating: [ENOENT]))
        }
        for name in [
            "kcore", "keys", "key-users", "kmsg", "kpagecount", "kpageflags", "kpagecgroup", "latency_stats",
            "sched_debug", "timer_list", "timer_stats", "vmcore",
        ] { cover("/proc/\(name)") }
        for name in ["acpi", "scsi"] { coverDirectory("/proc/\(name)") }
    }

    mutating func coverDirectory(_ path: String) {
        let flags = MountFlag.harmless | MountFlag.readOnly
        steps.append(
            MountStep(
                .mount(type: "tmpfs", target: path, flags: flags, options: "mode=555"),
                tolerating: isPrivileged ? [ENOENT] : [ENOENT, EACCES]
            )
        )
    }
}
