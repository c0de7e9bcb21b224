/// A record's line with its place in the log.
public struct AuditEntry: Hashable, Sendable {
    /// The record's number.
    public let sequence: UInt64
    /// The line without its newline: one JSON object of printable ASCII.
    public let line: [UInt8]
}
