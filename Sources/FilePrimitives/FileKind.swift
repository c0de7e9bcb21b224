/// What a file is, as far as anybody here asks.
public enum FileKind: Hashable, Sendable {
    /// A regular file.
    case file
    /// A directory.
    case directory
    /// A symbolic link.
    case link
    /// A Unix socket.
    case socket
    /// A device or a named pipe.
    case other
}
