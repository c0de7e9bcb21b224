/// What stands in a path, whether or not there is anything.
package enum PathName {
    /// The directory that `path` is in: `.` for a name alone.
    package static func directory(of path: String) -> String {
        guard let slash = path.lastIndex(of: "/") else { return "." }
        return slash == path.startIndex ? "/" : String(path[..<slash])
    }
}
