internal import CConfinement
internal import FilePrimitives
internal import Glibc

/// What this process lets go of. All of it is for good; no call gives anything back.
///
/// Capabilities belong to threads, and a thread has those of the one that started it. So a process lets go of them while
/// it has one thread, and a thread that is to hold less lets go of the rest when it begins.
public enum OwnPrivileges {
    /// The name of threads that carry traffic.
    public static let loopName = "sandgate-loop"
    /// The name of the thread that enters and makes namespaces, and of those that it starts.
    public static let keeperName = "sandgate-keeper"

    /// Makes every capability count that the calling thread may make count: file capabilities of a program whose user is
    /// not root are permitted, and not effective.
    public static func takeUp() throws(ConfinementError) {
        guard confinement_take_up_capabilities() == 0 else {
            throw ConfinementError("cannot take up capabilities", errno: errno)
        }
    }

    /// Takes from the calling thread every capability but those of `kept` that it has, in all of its sets; its bounding
    /// set becomes empty, where it may change it (CAP_SETPCAP).
    public static func keep(_ kept: CapabilitySet) throws(ConfinementError) {
        guard confinement_keep_capabilities(kept.rawValue) == 0 else {
            throw ConfinementError("cannot drop capabilities", errno: errno)
        }
    }

    /// For the whole process, when it executes no further program: sets no_new_privs, keeps others of its user from
    /// tracing it, and installs the system call filter on every thread. With `makesNetworks`, network namespaces can be
    /// made, entered and mounted afterwards.
    public static func seal(makesNetworks: Bool = false) throws(ConfinementError) {
        guard confinement_forbid_privileges() == 0 else {
            throw ConfinementError("cannot set no_new_privs", errno: errno)
        }
        try Supervisor.protect()
        try install(CONFINEMENT_FILTER_UNKNOWN)
        try install(makesNetworks ? CONFINEMENT_FILTER_NETWORKS : CONFINEMENT_FILTER_PROCESS)
    }

    /// Whether the calling thread may work in directories and read files, and notice that these change, without
    /// CAP_DAC_OVERRIDE. What does not exist yet would be made in the first directory above that does.
    public static func reachesWithoutOverride(writing directories: [String], reading files: [String]) -> Bool {
        directories.allSatisfy { confinement_access_without_override(nearest($0), R_OK | W_OK | X_OK) == 0 }
            && files.allSatisfy { file in
                // A file may be replaced later, or come; to be told of that takes to read its directory.
                confinement_access_without_override(nearest(PathName.directory(of: file)), R_OK | X_OK) == 0
                    && (access(file, F_OK) != 0 || confinement_access_without_override(file, R_OK) == 0)
            }
    }

    /// The path, or the first above it that exists.
    private static func nearest(_ path: String) -> String {
        var path = path
        while path != "/", path != ".", access(path, F_OK) != 0 { path = PathName.directory(of: path) }
        return path
    }

    private static func install(_ filter: confinement_filter) throws(ConfinementError) {
        guard confinement_filter(filter) == 0 else {
            throw ConfinementError("cannot install the system call filter", errno: errno)
        }
    }

    /// How many threads this process has now.
    public static var threadCount: Int {
        get throws(ConfinementError) { try FileSystem.entries(in: "/proc/self/task").count }
    }

    /// Gives the calling thread a name, of which the kernel keeps 15 bytes, by which it is told from others.
    public static func name(_ name: String) {
        confinement_name_thread(name)
    }
}
