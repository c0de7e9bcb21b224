internal import CLinux
public import FilePrimitives
internal import Glibc

/// Files and directories in a home directory that programs outside run or obey when their user logs in, opens a shell
/// or connects by ssh. A command that runs as that user must not write them: its lines would run outside.
///
/// Those that exist are for ``ConfinedCommand/Configuration/readOnlyPaths``. Nothing can be mounted over what does not
/// exist, or over a symbolic link; what has appeared there is set aside when the command has ended.
public struct StartupFiles {
    private static let names: [SystemString] = [
        ".bash_aliases", ".bash_completion", ".bash_login", ".bash_logout", ".bash_profile", ".bashrc", ".bashrc.d",
        ".cargo/env", ".cshrc", ".forward", ".gnomerc", ".k5login", ".k5users", ".kde/Autostart", ".kde4/Autostart",
        ".kshrc", ".local/share/dbus-1", ".local/share/systemd", ".login", ".logout", ".mkshrc", ".nvm/nvm.sh",
        ".oh-my-zsh", ".pam_environment", ".profile", ".rhosts", ".shosts", ".ssh", ".tcshrc", ".vnc/xstartup",
        ".xinitrc", ".xinputrc", ".xonshrc", ".xprofile", ".xsession", ".xsessionrc",
    ]
    /// In `.config`, or where $XDG_CONFIG_HOME says.
    private static let configurationNames: [SystemString] = [
        "autostart", "autostart-scripts", "elvish", "environment.d", "fish", "hypr", "i3", "nushell", "openbox",
        "plasma-workspace", "sway", "systemd", "xonsh",
    ]
    /// In the home directory, or where $ZDOTDIR says.
    private static let zshNames: [SystemString] = [".zlogin", ".zlogout", ".zprofile", ".zshenv", ".zshrc"]

    /// The paths of those that exist, without symbolic links.
    public let existing: [SystemString]
    /// Those that have other names (hard links), by which a command could write them.
    public let withOtherNames: [SystemString]
    private let links: [FileTrail.Link]
    private let missing: [SystemString]

    /// Looks at the home directory of this process's user.
    /// - Throws: when a directory that may be listed cannot be.
    public init() throws(ConfinementError) {
        func variable(_ name: String) -> SystemString? { getenv(name).map { SystemString(cString: $0) } }
        try self.init(
            homes: Self.homes(),
            configuration: variable("XDG_CONFIG_HOME"),
            zsh: variable("ZDOTDIR")
        )
    }

    /// The home directories of this process's user: $HOME and that of the password file.
    static func homes() -> [SystemString] {
        var homes: Set<SystemString> = []
        if let home = getenv("HOME") { homes.insert(SystemString(cString: home)) }
        if let entry = getpwuid(geteuid()) { homes.insert(SystemString(cString: entry.pointee.pw_dir)) }
        return homes.sorted()
    }

    init(homes: [SystemString], configuration: SystemString? = nil, zsh: SystemString? = nil) throws(ConfinementError) {
        var trail = FileTrail()
        let homes = homes.compactMap(RealPath.of).filter { $0 != "/" }
        for home in homes { Self.names.forEach { trail.follow("\(home)/\($0)") } }
        for directory in homes.map({ "\($0)/.config" as SystemString }) + [configuration].compactMap(\.self) {
            Self.configurationNames.forEach { trail.follow("\(directory)/\($0)") }
        }
        for directory in homes + [zsh].compactMap(\.self) {
            Self.zshNames.forEach { trail.follow("\(directory)/\($0)") }
        }
        try trail.followLinksInside()
        existing = trail.existing.sorted()
        withOtherNames = trail.withOtherNames.sorted()
        links = trail.links.sorted { $0.path < $1.path }
        missing = trail.missing.sorted()
    }
}

// MARK: - Afterwards

extension StartupFiles {
    /// What became of something that the command left where nothing was, or in a link's place.
    public enum Outcome: Hashable, Sendable {
        /// It has another name now.
        case renamed(to: SystemString)
        /// It is gone: it could not be renamed.
        case removed
        /// It is still there, and this is why.
        case stays(errno: CInt)
    }

    /// Renames what has appeared where nothing was, and puts links back. A command that wants to keep its file in place
    /// can take the rights to its directory away, but not for long.
    public func setAside() -> [(path: SystemString, outcome: Outcome)] {
        (links.map(\.path) + missing).forEach(Self.openWay)
        // First the links: what lies behind them is then where it was.
        let replaced = links.filter { FileSystem.destination(of: $0.path) != $0.destination }.compactMap { link in
            let outcome = FileSystem.kind(of: link.path).map { _ in Self.setAside(link.path) }
            symlink(link.destination.cString, link.path.cString)
            return outcome.map { (link.path, $0) }
        }
        let appeared = missing.filter { FileSystem.kind(of: $0) != nil }.map { ($0, Self.setAside($0)) }
        return replaced + appeared
    }

    /// Gives this user the rights back to its own directories on the way.
    private static func openWay(to path: SystemString) {
        var directory: SystemString = ""
        for name in path.components.dropLast() {
            directory = "\(directory)/\(name)"
            if !FileSystem.allows(directory, W_OK | X_OK), let mode = FileSystem.mode(of: directory) {
                chmod(directory.cString, mode | 0o700)  // fails, as it should, for what is another's
            }
        }
    }

    private static func setAside(_ path: SystemString) -> Outcome {
        var generator = SystemRandomNumberGenerator()
        var error: CInt = EEXIST
        for _ in 0..<8 where error == EEXIST {
            let suffix = String(generator.next() as UInt32, radix: 16)
            let newPath: SystemString = "\(path).from-sandbox-\(suffix)"
            if clinux_rename_to_new(path.cString, newPath.cString) == 0 { return .renamed(to: newPath) }
            error = errno
        }
        return unlink(path.cString) == 0 ? .removed : .stays(errno: error)
    }
}
