internal import FilePrimitives
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
/// * Directories of an automounter show what is mounted in them, and ask for nothing.
/// * `/etc/resolv.conf` is ours.
/// * `/dev` is new, with those of the node's devices that lead nowhere (``Device``) and those that the user hands over.
///   `/dev/shm` and `/dev/mqueue` in it are empty, and so are the directories of X sockets. So is `/dev/pts`: of the user's
///   terminals the command sees its own, as `/dev/console`.
/// * Mounts made later, here or on the node, stay where they were made.
///
/// All of this holds wherever else the same is mounted (``MountTable``): another /proc, /run or /dev in a chroot, a
/// device, a socket or a namespace that is mounted on a file, a second way to a file that is read-only.
///
/// What the node has mounted is covered, not detached: below it might lie what it hides. Without root the usher carries
/// the first steps out, in the user namespace that the network namespace belongs to, which `/sys` is mounted for; what
/// it mounted is locked for the command in turn.
struct MountPlan {
    /// What init carries out, in order.
    var steps: [MountStep] = []
    /// A temporary file system over the node's /proc, where parts are kept until they are moved into place.
    static let stage: SystemString = "/proc"
    let table: MountTable
    let isPrivileged: Bool
    /// How many of the steps are the usher's.
    private(set) var usheredSteps = 0
    /// Sockets that lead outside and were not found, so not hidden either.
    private(set) var unplacedSockets: [SystemString] = []
    /// Directories that are new for the command, or hidden.
    private let renewed: [SystemString]
    /// Those of them that are rebuilt.
    private let rebuilt: [SystemString]
    /// What is mounted over files that are hidden.
    private static let nothing: SystemString = "/dev/null"

    /// Looks at the node's file system and plans.
    /// - Throws: when there is no /etc/resolv.conf that could be replaced, or when the node cannot be looked at.
    init(_ configuration: ConfinedCommand.Configuration) throws(ConfinementError) {
        guard FileSystem.kind(of: Self.nothing) == .other else {
            throw ConfinementError("cannot cover files with \(Self.nothing)", errno: ENOENT)
        }
        table = try MountTable.current()
        let others = table.places(showing: "/run").filter { FileSystem.kind(of: $0) == .directory }
        rebuilt = ["/run", "/var/run"] + others.filter { $0 != "/var/run" }
        renewed = rebuilt + ["/dev", "/proc", "/sys"]
        isPrivileged = configuration.userNamespace == nil
        let resolvConf = try Self.resolvConfTarget()
        steps.append(MountStep(.makePrivate))
        coverKernelFileSystems()
        openStage(resolvConf: configuration.resolvConf)
        replaceAutomounts()
        let kernelPoints = Set(table.mounts.filter(\.isOfTheKernel).map(\.point))
        for path in rebuilt {
            guard let directory = RebuiltDirectory(path, others: kernelPoints) else { continue }
            steps += directory.steps(stage: "\(Self.stage)/run-\(steps.count)", files: [resolvConf])
        }
        try coverSockets(near: [configuration.workingDirectory] + StartupFiles.homes())
        steps.append(MountStep(.bind(source: "\(Self.stage)/resolv.conf", target: resolvConf)))
        steps.append(MountStep(.makeReadOnly(resolvConf)))
        protect(configuration.readOnlyPaths)
        try renewDevices(handedOver: configuration.devices, standard: configuration.standardDescriptors)
        renewSys()
        steps.append(MountStep(.detach(Self.stage)))
        if !isPrivileged { usheredSteps = steps.count }
        renewQueues()
        renewProc()
    }

    /// Where /etc/resolv.conf really lies: its link's target, which may be missing if it is below /run, where we make
    /// it.
    private static func resolvConfTarget() throws(ConfinementError) -> SystemString {
        let path: SystemString = "/etc/resolv.conf"
        if let target = RealPath.of(path) { return target }
        if let destination = FileSystem.destination(of: path) {
            let absolute = destination.hasPrefix("../") ? "/" + destination.dropFirst(3) : destination
            if absolute.hasPrefix("/run/") && !absolute.components.contains("..") { return absolute }
        }
        throw ConfinementError("cannot replace \(path): it must exist to be replaced for the command", errno: ENOENT)
    }
}

// MARK: - Steps

extension MountPlan {
    func isRenewed(_ path: SystemString) -> Bool { renewed.contains(where: path.isBelow) }

    /// Those mounts of kernel file systems that are not renewed and can be seen: the /proc of a chroot, a terminal or a
    /// network namespace that is mounted on a file.
    var otherKernelFileSystems: [MountedFileSystem] {
        table.mounts.filter {
            $0.isOfTheKernel && !isRenewed($0.point) && table.isVisible($0.point, through: $0)
        }
    }

    private mutating func coverKernelFileSystems() {
        for mount in otherKernelFileSystems {
            if FileSystem.kind(of: mount.point) == .directory {
                coverDirectory(mount.point)
            } else {
                cover(mount.point)
            }
        }
    }

    private mutating func openStage(resolvConf: [UInt8]) {
        steps.append(
            MountStep(.mount(type: "tmpfs", target: Self.stage, flags: MountFlag.harmless, options: "mode=755"))
        )
        steps.append(MountStep(.file("\(Self.stage)/resolv.conf", mode: 0o644, contents: resolvConf)))
    }

    private mutating func coverSockets(near: [SystemString]) throws(ConfinementError) {
        let sockets = try OutsideSockets(mounts: table, renewed: renewed, near: near)
        unplacedSockets = sockets.unplaced
        sockets.paths.forEach { cover($0) }
        for name in [".X11-unix", ".ICE-unix", ".XIM-unix", ".font-unix"] as [SystemString] {
            mountEmpty(table.places(of: "/tmp/\(name)"), mode: "1777")
        }
        // Where a server that restarts would bind anew.
        for (name, kind) in try FileSystem.entriesIfAllowed(in: "/tmp") where kind == .directory {
            let isForSockets = ["dbus-", "screen-", "ssh-", "tmux-", "uscreens"].contains(where: name.hasPrefix)
            if isForSockets { mountEmpty(table.places(of: "/tmp/\(name)"), mode: "700") }
        }
    }

    /// The errors of what has gone meanwhile, or cannot be passed to by this user.
    var absences: [CInt] { isPrivileged ? [ENOENT] : [ENOENT, EACCES] }

    /// A command that connects to a covered socket gets "connection refused"; one that reads a covered file, nothing.
    mutating func cover(_ path: SystemString) {
        let bind = MountStep.Operation.bind(source: Self.nothing, target: path)
        steps.append(MountStep(bind, tolerating: absences))
    }

    mutating func mountEmpty(_ paths: [SystemString], mode: String) {
        let flags = MountFlag.noSetUserID | MountFlag.noDevices
        for path in paths where !isRebuilt(path) && FileSystem.kind(of: path) == .directory {
            // One that went away meanwhile holds nothing.
            let mount = MountStep.Operation.mount(type: "tmpfs", target: path, flags: flags, options: "mode=\(mode)")
            steps.append(MountStep(mount, tolerating: [ENOENT]))
        }
    }

    private func isRebuilt(_ path: SystemString) -> Bool { rebuilt.contains(where: path.isBelow) }

    private mutating func protect(_ paths: [SystemString]) {
        let paths = paths.flatMap { path in
            [path] + (RealPath.of(path).map(table.aliases) ?? []).filter { !isRenewed($0) }
        }
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
    private mutating func pinAncestors(of paths: [SystemString]) {
        var pinned: Set<SystemString> = []
        for path in paths {
            var parent: SystemString = ""
            for component in path.components.dropLast() {
                let directory: SystemString = "\(parent)/\(component)"
                if FileSystem.allows(parent.isEmpty ? "/" : parent, W_OK) { pinned.insert(directory) }
                parent = directory
            }
        }
        // Outer ones first.
        for directory in pinned.sorted() {
            steps.append(MountStep(.bind(source: directory, target: directory, recursive: true), tolerating: [ENOENT]))
        }
    }

    private mutating func renewSys() {
        guard FileSystem.kind(of: "/sys") == .directory else { return }
        let groups: SystemString = "/sys/fs/cgroup"
        let hasGroups = table.mounts.contains { $0.point == groups }
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
        for name in ["bus", "fs", "irq", "sys", "sysrq-trigger", "mtrr"] as [SystemString] {
            let path: SystemString = "/proc/\(name)"
            steps.append(MountStep(.bind(source: path, target: path), tolerating: [ENOENT]))
            steps.append(MountStep(.makeReadOnly(path), tolerating: [ENOENT]))
        }
        for name in [
            "kcore", "keys", "key-users", "kmsg", "kpagecount", "kpageflags", "kpagecgroup", "latency_stats",
            "sched_debug", "timer_list", "timer_stats", "vmcore",
        ] as [SystemString] { cover("/proc/\(name)") }
        for name in ["acpi", "scsi"] as [SystemString] { coverDirectory("/proc/\(name)") }
    }

    private mutating func coverDirectory(_ path: SystemString) {
        let flags = MountFlag.harmless | MountFlag.readOnly
        steps.append(
            MountStep(
                .mount(type: "tmpfs", target: path, flags: flags, options: "mode=555"),
                tolerating: isPrivileged ? [ENOENT] : [ENOENT, EACCES]
            )
        )
    }
}
