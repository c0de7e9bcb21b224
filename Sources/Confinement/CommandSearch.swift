internal import FilePrimitives

/// Where a command's name may lead, as execvp(3) searches.
enum CommandSearch {
    /// The path that is searched when the environment has no PATH.
    static let defaultPath: SystemString = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

    /// The files to try in order. A name with a slash is the file itself; an empty entry of PATH is the working
    /// directory.
    static func candidates(for name: SystemString, environment: [SystemString]) -> [SystemString] {
        if name.isEmpty { return [] }
        if name.bytes.contains(UInt8(ascii: "/")) { return [name] }
        let path = environment.first { $0.hasPrefix("PATH=") }?.dropFirst(5) ?? defaultPath
        return path.bytes.split(separator: UInt8(ascii: ":"), omittingEmptySubsequences: false).map {
            $0.isEmpty ? name : "\(SystemString(bytes: $0))/\(name)"
        }
    }
}
