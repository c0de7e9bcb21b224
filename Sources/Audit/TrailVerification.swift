/// The outcome of checking the chain of a trail over all its files as one.
public struct TrailVerification: Sendable {
    /// What was counted, up to the end or the first break.
    public let verifier: AuditVerifier
    /// The file that the chain breaks in, and where; `nil` when it is intact.
    public let broken: (file: String, break: AuditVerifier.Break)?
    /// The files that were read, the oldest first.
    public let files: [String]
    /// Whether the last line has no newline: cut off, or being written.
    public let endsInsideLine: Bool

    /// Reads the files in `directory` and checks them. Throws when one cannot be read. A break is meant by the line's
    /// place in its own file.
    public init(directory: String) throws(AuditError) {
        let reader = try AuditTrailReader(directory: directory)
        var verifier = AuditVerifier(allowsLaterBeginning: true)
        // Where each file begins among all the lines: torn lines are judged only when the record behind them is seen,
        // which may stand in the next file.
        var files: [(path: String, linesBefore: UInt64)] = []
        var found: AuditVerifier.Break?
        while found == nil, let line = try reader.next() {
            if reader.path != files.last?.path { files.append((reader.path, verifier.lines)) }
            do {
                try verifier.consume(line.bytes)
            } catch {
                found = error
            }
        }
        if found == nil {
            do {
                try verifier.finish(partial: reader.partial)
            } catch {
                found = error
            }
        }
        broken = found.flatMap { found in
            files.last { $0.linesBefore < found.line }.map { file in
                (file.path, AuditVerifier.Break(line: found.line - file.linesBefore, problem: found.problem))
            }
        }
        // The newest file may be empty, or hold nothing but a line that is being written.
        if found == nil, !reader.path.isEmpty, reader.path != files.last?.path { files.append((reader.path, 0)) }
        self.verifier = verifier
        self.files = files.map(\.path)
        endsInsideLine = found == nil && !reader.partial.isEmpty
    }

    /// The outcome as one JSON object, without a newline. `file` is the one that the chain breaks in, or the newest.
    public var report: [UInt8] {
        verifier.report(
            file: broken?.file ?? files.last ?? "",
            files: UInt64(files.count),
            broken: broken?.break
        )
    }
}
