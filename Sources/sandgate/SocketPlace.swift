import Glibc

/// Makes the place for a Unix socket: its directory, which is its owner's alone, and no socket that a daemon before this
/// one left there.
enum SocketPlace {
    static func prepare(_ path: String) throws {
        guard let slash = path.lastIndex(of: "/"), slash != path.startIndex else {
            throw SetupError("--socket \(path): expected a path in a directory of its own")
        }
        let directory = String(path[..<slash])
        if mkdir(directory, 0o700) != 0, errno != EEXIST {
            throw SetupError("cannot create \(directory): \(String(cString: strerror(errno)))")
        }
        var status = stat()
        guard lstat(path, &status) == 0 else { return }
        guard status.st_mode & S_IFMT == S_IFSOCK else { throw SetupError("--socket \(path) is no socket") }
        guard !isServed(path) else { throw SetupError("--socket \(path): another daemon serves there") }
        guard unlink(path) == 0 else {
            throw SetupError("cannot remove \(path): \(String(cString: strerror(errno)))")
        }
    }

    private static func isServed(_ path: String) -> Bool {
        let client = APIClient(socket: path)
        return client.canConnect
    }
}
