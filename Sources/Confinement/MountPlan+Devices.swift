internal import FilePrimitives
internal import Glibc

// The command's /dev: the node's devices that lead nowhere (Device), what the user hands over, and what is new for the
// command.
//
// Terminals are the user's own: who opens one reads what is typed there and writes what looks like an answer. File modes
// keep nobody out who has the user's uid. So the command has pseudo-terminals of its own, with its own terminal beside
// them. What is open stays open, and /dev/tty is whatever controls the session, so only names change: tty(1) says
// /dev/console.
extension MountPlan {
    /// Where the command finds its terminal: systemd-nspawn has it there too, and ttyname(3) looks there.
    static let console: SystemString = "/dev/console"
    /// What is new for the command, by the first component of its name.
    private static let ownNames: Set<SystemString> = [
        "console", "fd", "hugepages", "mqueue", "ptmx", "pts", "shm", "stderr", "stdin", "stdout",
    ]

    /// Builds the new directory and moves it into place, wherever the node's is to be seen.
    /// - Throws: when one of `handedOver` is no device, or when the node's devices cannot be listed.
    mutating func renewDevices(
        handedOver: [SystemString],
        standard: (input: CInt, output: CInt, error: CInt)
    ) throws(ConfinementError) {
        let others = table.places(showing: "/dev").filter { !isRenewed($0) }
        let stage: SystemString = "\(Self.stage)/dev"
        makeDirectory(stage)
        mount("tmpfs", on: stage, MountFlag.harmless, "mode=755")
        let usual = try Device.found()
        for device in usual { place("/dev/\(device.name)", device.name, stage: stage) }
        for path in Set(handedOver).sorted() { try handOver(path, besides: usual.map(\.name), stage: stage) }
        for (name, target) in [("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2")] as [(String, String)] {
            steps.append(MountStep(.link(target: "/proc/self/fd\(target)", at: "\(stage)/\(name)")))
        }
        makeDirectory("\(stage)/shm")
        mount("tmpfs", on: "\(stage)/shm", MountFlag.noSetUserID | MountFlag.noDevices, "mode=1777")
        renewTerminals(of: [standard.input, standard.output, standard.error], stage: stage)
        renewDirectoriesOfTheKernel(stage: stage)
        steps.append(MountStep(.move(source: stage, target: "/dev")))
        for path in others { renew(path, keeping: usual.map(\.number)) }
        // In a chroot the terminals are the command's own, too; single ones are covered.
        for mount in otherKernelFileSystems where mount.type == "devpts" {
            guard FileSystem.kind(of: mount.point) == .directory else { continue }
            bindIfThere("/dev/pts", to: mount.point)
        }
    }

    /// Queues are the command's own, from when it has its namespace for them.
    mutating func renewQueues() {
        guard table.mounts.contains(where: { $0.point == "/dev/mqueue" }) else { return }
        steps.append(MountStep(.mount(type: "mqueue", target: "/dev/mqueue", flags: MountFlag.harmless)))
    }

    /// Another place where the node's devices, or a part of them, are to be seen.
    private mutating func renew(_ path: SystemString, keeping numbers: [dev_t]) {
        guard FileSystem.kind(of: path) == .directory else {
            // /dev/null itself, with which engines mask files, may stay.
            if let number = Device.number(of: path, type: S_IFCHR), numbers.contains(number) { return }
            return cover(path)
        }
        // All of them; or a part, and memory that is shared.
        if FileSystem.isSame(path, "/dev") { return bindIfThere("/dev", to: path) }
        mountEmpty([path], mode: "1777")
    }

    private mutating func handOver(
        _ path: SystemString,
        besides usual: [SystemString],
        stage: SystemString
    ) throws(ConfinementError) {
        let name = path.dropFirst("/dev/".utf8.count)
        guard path.hasPrefix("/dev/"), name.isPlain,
            let source = RealPath.of(path),
            Device.number(of: source, type: S_IFCHR) != nil || Device.number(of: source, type: S_IFBLK) != nil
        else { throw ConfinementError("cannot hand \(path) over: expected a device below /dev", errno: ENODEV) }
        guard let first = name.components.first, !Self.ownNames.contains(first) else {
            throw ConfinementError("cannot hand \(path) over: the command has its own", errno: EINVAL)
        }
        if !usual.contains(name) { place(source, name, stage: stage) }
    }

    private mutating func renewTerminals(of descriptors: [CInt], stage: SystemString) {
        let names = descriptors.compactMap(Self.terminalName)
        if let own = names.first {
            // One that was not handed over already.
            let name = (own.hasPrefix("/dev/pts/") ? Self.console : own).dropFirst("/dev/".utf8.count)
            if !steps.contains(MountStep(.file("\(stage)/\(name)", mode: 0o600))) { place(own, name, stage: stage) }
        }
        guard FileSystem.kind(of: "/dev/pts") == .directory else { return }
        makeDirectory("\(stage)/pts")
        steps.append(MountStep(.link(target: "pts/ptmx", at: "\(stage)/ptmx")))
        let options = "newinstance,ptmxmode=0666,mode=620" + (isPrivileged ? Self.terminalGroup : "")
        mount("devpts", on: "\(stage)/pts", MountFlag.noSetUserID | MountFlag.noExecution, options)
    }

    /// Queues, and memory in large pages, which is nobody's until it is asked for.
    private mutating func renewDirectoriesOfTheKernel(stage: SystemString) {
        for mount in table.mounts where ["hugetlbfs", "mqueue"].contains(mount.type) {
            guard mount.point == "/dev/hugepages" || mount.point == "/dev/mqueue" else { continue }
            let target = stage + mount.point.dropFirst("/dev".utf8.count)
            makeDirectory(target)
            if mount.type == "hugetlbfs" { bindIfThere(mount.point, to: target) }
        }
    }

    /// The group that new terminals belong to, where it can be had: C libraries before glibc 2.33 insist on it.
    private static var terminalGroup: String {
        getgrnam("tty").map { ",gid=\($0.pointee.gr_gid)" } ?? ""
    }

    /// The name below /dev of a terminal that this process has open.
    private static func terminalName(_ descriptor: CInt) -> SystemString? {
        guard isatty(descriptor) == 1, let name = ttyname(descriptor).map({ SystemString(cString: $0) }) else {
            return nil
        }
        return name.hasPrefix("/dev/") ? name : nil
    }
}

extension SystemString {
    /// Whether a relative path goes down and nowhere else: no name in it is empty or leads back.
    fileprivate var isPlain: Bool {
        bytes.split(separator: UInt8(ascii: "/"), omittingEmptySubsequences: false)
            .allSatisfy { !["", ".", ".."].contains(SystemString(bytes: $0)) }
    }
}

// MARK: - Steps

extension MountPlan {
    private mutating func mount(_ type: String, on target: SystemString, _ flags: UInt, _ options: String) {
        steps.append(MountStep(.mount(type: type, target: target, flags: flags, options: options)))
    }

    private mutating func makeDirectory(_ path: SystemString) {
        steps.append(MountStep(.directory(path, mode: 0o755)))
    }

    /// Mounts a device of the node's by a name below the new directory.
    private mutating func place(_ source: SystemString, _ name: SystemString, stage: SystemString) {
        steps += MountStep.directories(below: stage, towards: name)
        let target: SystemString = "\(stage)/\(name)"
        steps.append(MountStep(.file(target, mode: 0o600)))
        bindIfThere(source, to: target)
    }

    private mutating func bindIfThere(_ source: SystemString, to target: SystemString) {
        let bind = MountStep.Operation.bind(source: source, target: target, recursive: true)
        steps.append(MountStep(bind, tolerating: absences))
    }
}
