extension AuditVerifier {
    /// The outcome as one JSON object, without a newline.
    public func report(file: String, broken: Break?) -> [UInt8] {
        report(file: file, files: nil, broken: broken)
    }

    /// The same; for a trail also how many files it has, and where it begins.
    func report(file: String, files: UInt64?, broken: Break?) -> [UInt8] {
        var writer = RecordWriter()
        writer.member("file", string: file)
        if let files { writer.member("files", number: files) }
        writer.member("intact", bool: broken == nil)
        if let broken {
            writer.member("line", number: broken.line)
            writer.member("problem", string: broken.description)
        }
        writer.member("records", number: records)
        writer.member("lost", number: lost)
        writer.member("tornLines", number: tornLines)
        if let beginning {
            writer.member("begins") { object in
                object.member("seq", number: beginning.sequence)
                object.member("prev", ascii: beginning.previous.hexadecimal)
            }
        }
        if let head { writer.member("head", ascii: head.hexadecimal) } else { writer.member("head", null: ()) }
        return writer.finish()
    }

    /// The outcome for a person when nothing is wrong, without a newline: `chain intact, 4 records, head 6b86…`.
    public var summary: String {
        var text = "chain intact, \(records) records"
        if let beginning { text += " from \(beginning.sequence) on, the first behind \(beginning.previous)" }
        if lost > 0 { text += ", \(lost) lost" }
        if tornLines > 0 { text += ", \(tornLines) lines cut off by a crash" }
        if let head { text += ", head \(head)" }
        return text
    }
}
