public import NetPrimitives

/// Reads the files of a trail as one log, the oldest line first, also while it grows and is rotated. A directory
/// without such files is a log in which nothing stands yet.
public final class AuditTrailReader {
    /// The directory.
    public let directory: String
    /// The file that the last line came from; the empty string before the first.
    public private(set) var path = ""
    /// What has been read behind the last newline of the newest file.
    public var partial: ArraySlice<UInt8> { reader?.partial ?? [] }

    private var reader: AuditReader?
    /// The file after the one that is read. From when it is known on, the one that is read does not grow.
    private var following: AuditReader?
    /// The rotated files up to this number have been read, are being read, or are not wanted.
    private var position: UInt64 = 0

    /// Reads the files in `directory`. With `since`, files that hold nothing but older records may be left out.
    public init(directory: String, since: WallTime? = nil) throws(AuditError) {
        self.directory = directory
        let snapshot = try TrailSnapshot(directory: directory)
        if let since, let number = try snapshot.firstFile(since: since), number > 0 { position = number - 1 }
    }

    /// The next whole line, with its place in the file; `nil` when there is none yet. The last line of a file that
    /// another one follows is whole whatever it ends with.
    public func next() throws(AuditError) -> AuditReader.Line? {
        while true {
            if let line = try reader?.next() { return line }
            if let rest = following {
                let line = reader?.takePartial()
                if line == nil {
                    reader = rest
                    path = rest.path
                    following = nil
                    continue
                }
                return line
            }
            // What the file still holds was written before the one that follows came to be: it is read once more.
            following = try successor()
            if following == nil, try reader?.rewindIfCut() != true { return nil }
        }
    }

    /// The file behind the one that is read; `nil` as long as there is none.
    private func successor() throws(AuditError) -> AuditReader? {
        let files = try TrailDirectory(path: directory)
        while true {
            // Opened before the others are listed: should it be rotated in between, it is among them.
            let current = try files.reader(of: .current)
            guard let number = try files.rotatedFiles().first(where: { $0 > position }) else {
                return current?.identity == reader?.identity ? nil : current
            }
            position = number
            // It may have been removed since, or be the file that is read, under its new name.
            guard let rotated = try files.reader(of: .rotated(number)), rotated.identity != reader?.identity else {
                continue
            }
            return rotated
        }
    }
}
