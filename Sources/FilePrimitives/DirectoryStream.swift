internal import Glibc

/// The entries of a directory, one after the other: readdir(3), which tells an error from the end only to those who ask.
///
///     var stream = try DirectoryStream("/proc")
///     while let entry = try stream.next() { … }
public struct DirectoryStream: ~Copyable {
    /// The number of an error, `errno(3)`: that of opendir(3) or readdir(3).
    public struct Failure: Error, Hashable, Sendable {
        /// The number.
        public let errno: CInt

        fileprivate static var current: Failure { Failure(errno: Glibc.errno) }
    }

    /// One of the entries.
    public struct Entry: Hashable, Sendable {
        /// Its name.
        public let name: SystemString
        /// What the directory says of it: `nil` where the file system does not tell. What is mounted on it may be of another
        /// kind.
        public let kind: FileKind?
    }

    private let stream: OpaquePointer

    /// Opens a directory; links to one are followed.
    public init(_ path: SystemString) throws(Failure) {
        guard let stream = opendir(path.cString) else { throw .current }
        self.stream = stream
    }

    /// Takes over a descriptor of a directory, also when it fails. The place in the list is that of the open file, which other
    /// descriptors may share.
    public init(taking descriptor: CInt) throws(Failure) {
        guard let stream = fdopendir(descriptor) else {
            let failure = Failure.current
            close(descriptor)
            throw failure
        }
        self.stream = stream
    }

    deinit { closedir(stream) }

    /// The next entry but `.` and `..`; `nil` after the last. What is made or removed meanwhile may be among them or not.
    public mutating func next() throws(Failure) -> Entry? {
        while true {
            errno = 0
            guard let entry = readdir(stream) else {
                let failure = Failure.current
                if failure.errno == 0 { return nil }
                throw failure
            }
            let name = withUnsafeBytes(of: &entry.pointee.d_name) { bytes in
                SystemString(bytes: bytes.prefix { $0 != 0 })
            }
            if name == "." || name == ".." { continue }
            return Entry(name: name, kind: Self.kind(entry.pointee.d_type))
        }
    }

    private static func kind(_ type: UInt8) -> FileKind? {
        switch Int(type) {
        case Int(DT_REG): .file
        case Int(DT_DIR): .directory
        case Int(DT_LNK): .link
        case Int(DT_SOCK): .socket
        case Int(DT_UNKNOWN): nil
        default: .other
        }
    }
}

extension DirectoryStream {
    /// The names in a directory as text, in which what is not UTF-8 is replaced. Sorted.
    public static func names(in path: String) throws(Failure) -> [String] {
        var stream = try DirectoryStream(SystemString(path))
        var names: [String] = []
        while let entry = try stream.next() { names.append(entry.name.description) }
        return names.sorted()
    }
}
