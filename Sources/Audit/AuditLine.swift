public import NetPrimitives

/// A record as it is read back from a file. Kinds of events, reasons and members that this version does not know are
/// kept as text: a log outlives the program that wrote it.
public struct AuditLine: Hashable, Sendable {
    /// Its place in the file.
    public let sequence: UInt64
    /// When it happened.
    public let time: WallTime
    /// The sandbox it happened in; empty for events of the process.
    public let sandbox: String
    /// What happened, such as `connection.denied`.
    public let event: String
    /// The digest of what stands before it; `nil` for the first record.
    public let previous: LineDigest?
    private let members: [String: JSONValue]

    /// Why a line is not a record.
    public enum ParseError: Error, Hashable, Sendable {
        /// Not one JSON object as the log writes them.
        case malformed
        /// A member that every record has is absent or of another type.
        case member(String)
    }

    /// Parses a line without its newline.
    public init(parsing line: some Collection<UInt8>) throws(ParseError) {
        let members: [String: JSONValue]
        do {
            members = try JSONReader.object(in: line)
        } catch {
            throw .malformed
        }
        // The bound keeps whoever counts on from overflowing.
        guard case .number(let sequence)? = members["seq"], sequence <= UInt64(Int64.max) else { throw .member("seq") }
        guard case .string(let text)? = members["ts"], let time = Timestamp.time(parsing: text.utf8) else {
            throw .member("ts")
        }
        guard case .string(let event)? = members["event"] else { throw .member("event") }
        switch members["prev"] {
        case .null?: previous = nil
        case .string(let text)?:
            guard let digest = LineDigest(hexadecimal: text.utf8) else { throw .member("prev") }
            previous = digest
        default: throw .member("prev")
        }
        for key in ["sandbox", "layer", "verdict", "reason", "host", "ip", "protocol"] {
            guard let value = members[key], value != .null else { continue }
            guard case .string = value else { throw .member(key) }
        }
        self.sequence = sequence
        self.time = time
        self.event = event
        self.members = members
        sandbox = if case .string(let text)? = members["sandbox"] { text } else { "" }
    }

    private func text(_ key: String) -> String? {
        guard case .string(let text)? = members[key] else { return nil }
        return text
    }

    private func number(_ key: String) -> UInt64? {
        guard case .number(let number)? = members[key] else { return nil }
        return number
    }

    /// Where it was decided, such as `tls-sni`.
    public var layer: String? { text("layer") }
    /// `allow` or `deny`.
    public var verdict: String? { text("verdict") }
    /// Whether it was let through only because the policy's mode is `report`.
    public var isReportOnly: Bool { members["report"] == .bool(true) }
    /// Why it was decided so.
    public var reason: String? { text("reason") }
    /// The name; it may hold any character.
    public var host: String? { text("host") }
    /// The destination address.
    public var address: String? { text("ip") }
    /// The destination port.
    public var port: UInt64? { number("port") }
    /// `tcp`, `udp` or another protocol.
    public var protocolName: String? { text("protocol") }
    /// The revision of the policy in force.
    public var policyRevision: UInt64? { number("policyRevision") }
    /// Bytes relayed from the sandbox.
    public var bytesUp: UInt64? { number("bytesUp") }
    /// Bytes relayed to the sandbox.
    public var bytesDown: UInt64? { number("bytesDown") }
    /// How long the connection lived, in milliseconds.
    public var durationMilliseconds: UInt64? { number("durationMs") }
    /// How many records were lost, or how many packets the record stands for.
    public var count: UInt64? { number("count") }

    /// What happened in words; it may hold any character.
    public var words: String? { text("detail") }

    /// The rule that decided: its position, what it does, what it speaks of, and the operator's file when it is not
    /// the policy's.
    public var rule: (index: UInt64, action: String, target: String, source: String?)? {
        guard case .object(let rule)? = members["rule"], case .number(let index)? = rule["index"],
            case .string(let action)? = rule["action"], case .string(let target)? = rule["target"]
        else { return nil }
        guard case .string(let source)? = rule["source"] else { return (index, action, target, nil) }
        return (index, action, target, source)
    }
}
