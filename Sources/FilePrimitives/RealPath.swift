import Glibc

/// realpath(3).
public enum RealPath {
    /// The absolute path without symbolic links; `nil` when `path` leads nowhere, and `errno` says why.
    public static func of(_ path: SystemString) -> SystemString? {
        guard let resolved = realpath(path.cString, nil) else { return nil }
        defer { free(resolved) }
        return SystemString(cString: resolved)
    }

    /// The same as text, in which what is not UTF-8 is replaced.
    public static func of(_ path: String) -> String? { of(SystemString(path)).map(\.description) }
}
