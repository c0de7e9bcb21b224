import Confinement
import Glibc
import Namespaces
import Sandboxes

/// What is needed of the kernel, checked before anything is made: a missing capability is named, never worked around.
/// And what is given up when it is no longer needed.
enum Privileges {
    /// For `run` as root.
    static func requireForRun() throws {
        let missing = try missing(for: .run)
        guard !missing.isEmpty else { return }
        // Root without CAP_SETFCAP cannot do without privilege either, as others can.
        let instead = UserNamespace.mayMapRoot ? "or try --rootless" : "or run it as another user than root"
        throw SetupError("missing \(missing): the sandbox cannot be set up without, \(instead)")
    }

    /// For `serve`.
    static func requireForServe() throws {
        let missing = try missing(for: .serve)
        guard missing.isEmpty else { throw SetupError("missing \(missing): sandboxes cannot be guarded without") }
    }

    /// For `sidecar`, which may be another user than root with file capabilities (deploy/image-archive).
    static func requireForSidecar() throws {
        try OwnPrivileges.takeUp()
        let missing = try missing(for: .sidecar)
        guard missing.isEmpty else { throw SetupError("missing \(missing): this network cannot be guarded without") }
    }

    private static func missing(for mode: PrivilegeTable.Mode) throws -> String {
        guard let own = HeldPrivileges.threads(of: "self")?.first else {
            throw SetupError("cannot read the capabilities of this process from /proc/self/status")
        }
        return PrivilegeTable(mode).needed.subtracting(own.effective).names.joined(separator: ", ")
    }

    // MARK: Giving up

    /// For `serve` and `sidecar`, before there is another thread: keeps what the mode keeps. `apiPort` is where the API
    /// will be served over TCP, if it will; the directories are written in from then on, the files read.
    static func giveUp(
        _ mode: PrivilegeTable.Mode,
        apiPort: Int?,
        writing directories: [String],
        reading files: [String]
    ) throws {
        var needed: CapabilitySet = []
        if let apiPort, apiPort < 1024 { needed.insert(.netBindService) }
        if !OwnPrivileges.reachesWithoutOverride(writing: directories, reading: files) { needed.insert(.dacOverride) }
        try Keeper.begin(mode, needed: needed)
    }

    /// For `run`, when the command has been made and not yet started: this thread goes on supervising it and carrying its
    /// traffic, and executes nothing any more.
    static func giveUp(afterSettingUp mode: PrivilegeTable.Mode) throws {
        let table = PrivilegeTable(mode)
        try OwnPrivileges.seal()
        try OwnPrivileges.keep(table.most(.loop))
    }
}
