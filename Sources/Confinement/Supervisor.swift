internal import CConfinement
internal import Glibc

/// This process, which guards confined commands.
public enum Supervisor {
    /// Keeps other processes of the same user from tracing this one, reading its memory or taking its descriptors
    /// (PR_SET_DUMPABLE 0). Call it first thing: what was opened before is open already.
    public static func protect() throws(ConfinementError) {
        guard confinement_hide_process() == 0 else {
            throw ConfinementError("cannot protect this process from being traced", errno: errno)
        }
    }
}
