import Audit
import FilePrimitives
import Glibc

/// The records of one or many files that a query wants, in order of time.
struct AuditListing {
    /// Where records are read from.
    enum Source {
        case file(String)
        case directory(String)

        /// The files there are now that are a log each, by name: of a directory, those that end in .jsonl and are
        /// not the files of a trail.
        func paths() throws(SetupError) -> [String] {
            switch self {
            case .file(let path): return [path]
            case .directory(let path):
                do throws(DirectoryStream.Failure) {
                    return try DirectoryStream.names(in: path).filter {
                        $0.hasSuffix(".jsonl") && !$0.hasPrefix(".") && !AuditTrail.includes(fileNamed: $0)
                    }.map { "\(path)/\($0)" }
                } catch {
                    throw SetupError("cannot read directory \(path): \(String(cString: strerror(error.errno)))")
                }
            }
        }

        /// The directories where something changes when a record is written.
        var directories: Set<String> {
            switch self {
            case .directory(let path): return [path]
            case .file(let path):
                guard let slash = path.lastIndex(of: "/") else { return ["."] }
                return [slash == path.startIndex ? "/" : String(path[..<slash])]
            }
        }
    }

    /// What is read as one log.
    private enum Log {
        case file(AuditReader)
        case trail(AuditTrailReader)

        func next() throws(AuditError) -> AuditReader.Line? {
            switch self {
            case .file(let reader): try reader.next()
            case .trail(let reader): try reader.next()
            }
        }

        /// The file that the last line came from.
        var path: String {
            switch self {
            case .file(let reader): reader.path
            case .trail(let reader): reader.path
            }
        }

        /// Goes on with the file that took the place of the one that was read. A trail does so by itself.
        func reopenIfReplaced() throws(AuditError) {
            if case .file(let reader) = self { try reader.reopenIfReplaced() }
        }
    }

    /// A log and the record of it that was read and not yet shown.
    private struct Input {
        let log: Log
        var pending: (line: AuditReader.Line, record: AuditLine)?
    }

    private let source: Source
    private let query: AuditQuery
    private let isJSON: Bool
    private let colour = StandardOutput.hasColour
    private var output = StandardOutput()
    private var inputs: [Input] = []

    init(source: Source, query: AuditQuery, isJSON: Bool) throws {
        self.source = source
        self.query = query
        self.isJSON = isJSON
        for path in try source.paths() { inputs.append(Input(log: .file(try AuditReader(path: path)))) }
        if case .directory(let path) = source {
            inputs.append(Input(log: .trail(try AuditTrailReader(directory: path, since: query.since))))
        }
    }

    /// Shows every record there is, the oldest first.
    mutating func showAll() throws {
        for index in inputs.indices { try advance(index) }
        while let index = oldest() {
            if let (line, record) = inputs[index].pending, query.matches(record) {
                if isJSON { try output.line(line.bytes) } else { try output.line(record.text(colour: colour)) }
            }
            try advance(index)
        }
        try output.flush()
    }

    /// Goes on with what is written from now on, forever.
    mutating func follow() throws -> Never {
        let watch = DirectoryWatch(directories: source.directories)
        while true {
            try showAll()
            watch.wait()
            try showAll()
            for input in inputs { try input.log.reopenIfReplaced() }
            let known = Set(inputs.map(\.log.path))
            for path in try source.paths() where !known.contains(path) {
                inputs.append(Input(log: .file(try AuditReader(path: path))))
            }
        }
    }

    private func oldest() -> Int? {
        var oldest: (index: Int, record: AuditLine)?
        for (index, input) in inputs.enumerated() {
            guard let record = input.pending?.record else { continue }
            if let found = oldest, found.record.time <= record.time { continue }
            oldest = (index, record)
        }
        return oldest?.index
    }

    /// Reads the next record of a file. Lines that are none are told of and passed over: a crash leaves them, and
    /// `--verify` is what judges them.
    private mutating func advance(_ index: Int) throws(AuditError) {
        let log = inputs[index].log
        inputs[index].pending = nil
        while let line = try log.next() {
            if let record = try? AuditLine(parsing: line.bytes) {
                inputs[index].pending = (line, record)
                return
            }
            Console.error("\(log.path):\(line.number): not an audit record")
        }
    }
}
