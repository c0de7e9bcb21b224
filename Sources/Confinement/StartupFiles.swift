internal import Glibc

/// Files and directories in a home directory that programs outside run or obey when their user logs in, opens a shell
/// or connects by ssh. A command that runs as that user must not write them: its lines would run outside.
///
/// Those that exist are for ``ConfinedCommand/Configuration/readOnlyPaths``. Nothing can be mounted over what does not
/// exist, or over a symbolic link; what has appeared there is set aside when the command has ended.
public struct StartupFiles {
    private static let names = [
        ".bash_aliases", ".bash_login", ".bash_logout", ".bash_profile", ".bashrc", ".bashrc.d", ".config/autostart",
        ".config/autostart-scripts", ".config/environment.d", ".config/fish", ".config/plasma-workspace",
        ".config/systemd", ".cshrc", ".forward", ".kshrc", ".local/share/dbus-1", ".local/share/systemd", ".login",
        ".logout", ".mkshrc", ".oh-my-zsh", ".pam_environment", ".profile", ".ssh", ".tcshrc", ".xinitrc", ".xprofile",
        ".xsession", ".xsessionrc", ".zlogin", ".zlogout", ".zprofile", ".zshenv", ".zshrc",
    ]

    /// A place that cannot be mounted over, as it was before the command.
    private struct Place {
        let path: String
        /// Where it led, if it was a link.
        let destination: String?
    }

    /// The paths of those that exist, without symbolic links.
    public let existing: [String]
    private let places: [Place]

    /// Looks at the home directory of this process's user.
    public init() { self.init(homes: Self.homes()) }

    /// The home directories of this process's user: $HOME and that of the password file.
    static func homes() -> [String] {
        var homes: Set<String> = []
        if let home = getenv("HOME") { homes.insert(String(cString: home)) }
        if let entry = getpwuid(geteuid()) { homes.insert(String(cString: entry.pointee.pw_dir)) }
        return homes.sorted()
    }

    init(homes: [String]) {
        var existing: Set<String> = []
        var places: [Place] = []
        for home in homes.compactMap(FileSystem.realPath) where home != "/" {
            for path in Self.names.map({ "\(home)/\($0)" }) {
                let destination = FileSystem.destination(of: path)
                if let target = FileSystem.realPath(path) { existing.insert(target) }
                if destination != nil || FileSystem.kind(of: path) == nil {
                    places.append(Place(path: path, destination: destination))
                }
            }
        }
        self.existing = existing.sorted()
        self.places = places
    }

    /// Renames what has appeared where nothing was, and puts links back. Returns old and new names.
    public func setAside() -> [(path: String, newPath: String)] {
        places.compactMap { place in
            let isUntouched =
                place.destination == nil
                ? FileSystem.kind(of: place.path) == nil
                : FileSystem.destination(of: place.path) == place.destination
            if isUntouched { return nil }
            let newPath = "\(place.path).from-sandbox-\(getpid())"
            let isMoved = rename(place.path, newPath) == 0
            if let destination = place.destination { symlink(destination, place.path) }
            return isMoved ? (place.path, newPath) : nil
        }
    }
}
