import EgressCore
public import NetPrimitives

/// Which records of a log are wanted. What is `nil` does not matter.
public struct AuditQuery: Hashable, Sendable {
    /// A verdict to look for.
    public enum Verdict: String, Hashable, Sendable, CaseIterable {
        /// Let through, also where only report mode let it.
        case allow
        /// Refused.
        case deny
        /// Let through only because of report mode.
        case report
        /// Refused, or let through only because of report mode; the end of such a connection is not counted again.
        case refused
    }

    /// The sandbox.
    public var sandbox: String?
    /// The verdict.
    public var verdict: Verdict?
    /// A pattern for the kind of event, such as `question.*`.
    public var event: Glob?
    /// The earliest time.
    public var since: WallTime?
    /// A pattern for the host, or for the address: see ``Glob``.
    public var host: Glob?

    /// A query that wants every record.
    public init(
        sandbox: String? = nil,
        verdict: Verdict? = nil,
        event: Glob? = nil,
        since: WallTime? = nil,
        host: Glob? = nil
    ) {
        self.sandbox = sandbox
        self.verdict = verdict
        self.event = event
        self.since = since
        self.host = host
    }

    /// Whether `line` is wanted.
    public func matches(_ line: AuditLine) -> Bool {
        if let sandbox, line.sandbox != sandbox { return false }
        if let since, line.time < since { return false }
        if let event, !event.matches(line.event) { return false }
        switch verdict {
        case .report?: guard line.isReportOnly else { return false }
        case .refused?:
            let isReported = line.isReportOnly && line.event != AuditEvent.Kind.connectionClosed.rawValue
            guard isReported || line.verdict == Verdict.deny.rawValue else { return false }
        case let verdict?: guard line.verdict == verdict.rawValue else { return false }
        case nil: break
        }
        if let host {
            guard [line.host, line.address].contains(where: { $0.map(host.matches) ?? false }) else { return false }
        }
        return true
    }
}

/// A shell-like pattern: `*` stands for any run of characters, dots included, `?` for one; the rest for itself,
/// whatever its case. It covers the whole text.
public struct Glob: Hashable, Sendable {
    /// The pattern as it was given.
    public let pattern: String
    private let folded: [UInt8]

    /// A pattern; every text is one.
    public init(_ pattern: String) {
        self.pattern = pattern
        folded = Array(pattern.lowercased().utf8)
    }

    /// Whether `text` matches, in time proportional to pattern times text at most.
    public func matches(_ text: String) -> Bool {
        let bytes = Array(text.lowercased().utf8)
        var position = 0
        var step = 0
        // Where to continue when what follows the last star does not match: one byte later.
        var retry: (step: Int, position: Int)?
        while position < bytes.count {
            if step < folded.count, folded[step] == UInt8(ascii: "*") {
                retry = (step + 1, position)
                step += 1
            } else if step < folded.count, folded[step] == bytes[position] || folded[step] == UInt8(ascii: "?") {
                step += 1
                position += 1
            } else if let last = retry {
                retry = (last.step, last.position + 1)
                step = last.step
                position = last.position + 1
            } else {
                return false
            }
        }
        return folded[step...].allSatisfy { $0 == UInt8(ascii: "*") }
    }
}
