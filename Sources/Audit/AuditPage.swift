/// The answer to `GET /v1/audit`, for those who read it back: `{"items":[RECORD,…],"nextCursor":"…"}`.
public enum AuditPage {
    /// The records' lines in the order in which they stand there, for ``AuditLine``, which knows whether they are any.
    public static func lines(in answer: some Collection<UInt8>) -> [[UInt8]] {
        var lines: [[UInt8]] = []
        var line: [UInt8] = []
        var depth = 0
        var isInString = false
        var isEscaped = false
        for byte in answer {
            if !isInString, byte == UInt8(ascii: "{") { depth += 1 }
            if depth > 1 { line.append(byte) }
            if isInString {
                if !isEscaped, byte == UInt8(ascii: "\"") { isInString = false }
                isEscaped = !isEscaped && byte == UInt8(ascii: "\\")
            } else if byte == UInt8(ascii: "\"") {
                isInString = true
            } else if byte == UInt8(ascii: "}") {
                depth -= 1
                guard depth == 1 else { continue }
                lines.append(line)
                line = []
            }
        }
        return lines
    }
}
