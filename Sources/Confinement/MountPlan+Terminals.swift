internal import FilePrimitives
internal import Glibc

// A user's other terminals: who opens one reads what is typed there and writes what looks like an answer. File modes keep
// nobody out who has the user's uid.
extension MountPlan {
    /// Where the command finds its terminal: systemd-nspawn has it there too, and ttyname(3) looks there.
    static let console = "/dev/console"

    /// Gives the command pseudo-terminals of its own, with its own terminal beside them. What is open stays open, and
    /// /dev/tty is whatever controls the session, so only names change: tty(1) says /dev/console.
    mutating func renewTerminals(standard: (input: CInt, output: CInt, error: CInt)) throws(ConfinementError) {
        let descriptors = [standard.input, standard.output, standard.error]
        let own = descriptors.lazy.compactMap(Self.terminalName).first
        let isConsoleTaken = renewPseudoTerminals(own: own)
        let ownDevices = descriptors.compactMap(Self.device)
        for (name, _) in try FileSystem.entries(in: "/dev") where Self.isTerminal(name) {
            for path in table.places(of: "/dev/\(name)") where FileSystem.kind(of: path) == .other {
                if path == Self.console && isConsoleTaken { continue }
                guard access(path, R_OK) == 0 || access(path, W_OK) == 0 else { continue }
                var status = stat()
                if stat(path, &status) == 0, !ownDevices.contains(status.st_rdev) { cover(path) }
            }
        }
    }

    /// Whether the command's terminal, named `own`, has been put in the console's place.
    private mutating func renewPseudoTerminals(own: String?) -> Bool {
        guard FileSystem.kind(of: "/dev/pts") == .directory else { return false }
        let terminal = "\(Self.stage)/terminal"
        let isMoved = own.map { $0.hasPrefix("/dev/pts/") || $0 == Self.console } ?? false
        let hasConsole = FileSystem.kind(of: Self.console) != nil
        if let own, isMoved, hasConsole {
            steps.append(MountStep(.file(terminal, mode: 0o600)))
            steps.append(MountStep(.bind(source: own, target: terminal)))
        }
        steps.append(
            MountStep(
                .mount(
                    type: "devpts",
                    target: "/dev/pts",
                    flags: MountFlag.noSetUserID | MountFlag.noExecution,
                    options: "newinstance,ptmxmode=0666,mode=620" + (isPrivileged ? Self.terminalGroup : "")
                )
            )
        )
        // In a chroot they are the command's own, too; single ones are covered.
        for mount in otherKernelFileSystems where mount.type == "devpts" {
            guard FileSystem.kind(of: mount.point) == .directory else { continue }
            let bind = MountStep.Operation.bind(source: "/dev/pts", target: mount.point)
            steps.append(MountStep(bind, tolerating: isPrivileged ? [ENOENT] : [ENOENT, EACCES]))
        }
        guard isMoved, hasConsole else { return false }
        steps.append(MountStep(.bind(source: terminal, target: Self.console)))
        return true
    }

    /// The group that new terminals belong to, where it can be had: C libraries before glibc 2.33 insist on it.
    private static var terminalGroup: String {
        getgrnam("tty").map { ",gid=\($0.pointee.gr_gid)" } ?? ""
    }

    /// Virtual consoles and what is on their screens, and consoles of hypervisors. Serial lines may be anything.
    private static func isTerminal(_ name: String) -> Bool {
        if name == "console" || name.hasPrefix("vcs") { return true }
        return ["tty", "hvc"].contains {
            name.hasPrefix($0) && name.count > 3 && name.dropFirst(3).allSatisfy(\.isNumber)
        }
    }

    private static func terminalName(_ descriptor: CInt) -> String? {
        isatty(descriptor) == 1 ? ttyname(descriptor).map { String(cString: $0) } : nil
    }

    private static func device(_ descriptor: CInt) -> dev_t? {
        var status = stat()
        return fstat(descriptor, &status) == 0 && status.st_mode & S_IFMT == S_IFCHR ? status.st_rdev : nil
    }
}
