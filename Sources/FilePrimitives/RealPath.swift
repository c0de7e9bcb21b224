import Glibc

/// realpath(3).
public enum RealPath {
    /// The absolute path without symbolic links; `nil` when `path` leads nowhere, and `errno` says why.
    public static func of(_ path: String) -> String? {
        guard let resolved = realpath(path, nil) else { return nil }
        defer { free(resolved) }
        return String(cString: resolved)
    }
}
