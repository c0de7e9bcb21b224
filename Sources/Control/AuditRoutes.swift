import Audit
import EgressPolicy
import HTTPTypes
import Hummingbird
import NIOCore
import NetPrimitives
import Reactor
import Sandboxes

/// `/v1/audit`: what was recorded, and what is being recorded.
struct AuditRoutes {
    let node: SandboxNode
    let archive: AuditArchive

    private static let defaultPageSize = 100
    private static let longestPage = 10_000
    /// How many records are looked at for a page of the newest: who wants the older ones asks for the next page.
    private static let examinedRecords = 200_000
    private static let recordNumbers: ClosedRange<UInt64> = 0...UInt64(Int64.max)
    /// A comment is sent so often, so that a connection over which nothing comes is known to live.
    private static let heartbeat = Duration.seconds(15)

    func add(to group: RouterGroup<some RequestContext>) {
        group.get("audit") { request, _ in try await page(request) }
        group.get("audit/reasons") { _, _ in
            Answer.json(Dictionary(uniqueKeysWithValues: Reason.allCases.map { ($0.rawValue, ReasonBody($0)) }))
        }
        group.get("audit/stream") { request, _ in try stream(request) }
    }

    /// A reason in words.
    private struct ReasonBody: Encodable {
        let phrase: String
        let advice: String?

        init(_ reason: Reason) {
            phrase = reason.phrase
            advice = reason.advice
        }
    }

    private static let filters: Set = ["sandbox", "verdict", "event", "since", "host"]

    private func query(_ parameters: QueryParameters) throws -> AuditQuery {
        var query = AuditQuery()
        query.sandbox = parameters["sandbox"]
        if let text = parameters["verdict"] {
            guard let verdict = AuditQuery.Verdict(rawValue: text) else {
                throw APIError.parameter("verdict", "expected allow, deny, report or refused")
            }
            query.verdict = verdict
        }
        if let text = parameters["since"] {
            guard let since = AuditQuery.since(parsing: text, now: .current) else {
                throw APIError.parameter("since", "expected 90s, 10m, 2h, 7d or a time as in RFC 3339")
            }
            query.since = since
        }
        query.event = parameters["event"].map { Glob($0) }
        query.host = parameters["host"].map { Glob($0) }
        return query
    }

    /// Whether the newest come first.
    private func isNewestFirst(_ parameters: QueryParameters) throws -> Bool {
        switch parameters["order"] {
        case nil, "oldest": return false
        case "newest": return true
        default: throw APIError.parameter("order", "expected oldest or newest")
        }
    }

    /// Records in their order, or the newest first, from `cursor` on.
    private func page(_ request: Request) async throws -> Response {
        let parameters = try QueryParameters(request, known: Self.filters.union(["limit", "cursor", "order"]))
        let query = try query(parameters)
        let limit = try parameters.number("limit", in: 1...Self.longestPage) ?? Self.defaultPageSize
        let cursor = try parameters.number("cursor", in: Self.recordNumbers)
        let isNewestFirst = try isNewestFirst(parameters)
        await node.journal.flush()
        let page = try await Blocking.run { [archive, limit] in
            isNewestFirst
                ? try archive.latest(query, before: cursor, limit: limit, examining: Self.examinedRecords)
                : try archive.query(query, after: cursor, limit: limit)
        }
        var body = Array("{\"items\":[".utf8)
        for (index, entry) in page.entries.enumerated() {
            if index > 0 { body.append(UInt8(ascii: ",")) }
            body += entry.line
        }
        body += Array("]".utf8)
        if let next = page.next { body += Array(",\"nextCursor\":\"\(next)\"".utf8) }
        return Answer.raw(body + Array("}".utf8), type: "application/json")
    }

    /// Server-sent events: what is recorded from now on, or from the record on that `Last-Event-ID` names.
    private func stream(_ request: Request) throws -> Response {
        let parameters = try QueryParameters(request, known: Self.filters.union(["after"]))
        let query = try query(parameters)
        var last = try parameters.number("after", in: Self.recordNumbers)
        if let header = request.headers[.lastEventID] {
            guard let number = UInt64(header), Self.recordNumbers.contains(number) else {
                throw APIError.parameter("Last-Event-ID", "expected the number of a record")
            }
            last = number
        }
        let resumed = last
        let body = ResponseBody { [node, archive] writer in
            let lines = node.journal.lines()
            var sent = resumed
            try await writer.write(ByteBuffer(string: ": sandgate audit\n\n"))
            if let resumed {
                var cursor: UInt64? = resumed
                await node.journal.flush()
                while let from = cursor {
                    let page = try await Blocking.run { try archive.query(query, after: from, limit: 1_000) }
                    for entry in page.entries {
                        try await writer.write(Self.event(entry.sequence, entry.line))
                        sent = entry.sequence
                    }
                    cursor = page.next
                }
            }
            for try await item in Self.merged(lines) {
                switch item {
                case nil: try await writer.write(ByteBuffer(string: ":\n\n"))
                case let line?:
                    if let sent, line.sequence <= sent { continue }
                    guard let parsed = try? AuditLine(parsing: line.bytes), query.matches(parsed) else { continue }
                    try await writer.write(Self.event(line.sequence, line.bytes))
                }
            }
            try await writer.finish(nil)
        }
        return Response(
            status: .ok,
            headers: [.contentType: "text/event-stream", .cacheControl: "no-store"],
            body: body
        )
    }

    private static func event(_ sequence: UInt64, _ line: [UInt8]) -> ByteBuffer {
        var buffer = ByteBuffer(string: "id: \(sequence)\ndata: ")
        buffer.writeBytes(line)
        buffer.writeString("\n\n")
        return buffer
    }

    /// The lines, and `nil` now and then.
    private static func merged(_ lines: AsyncStream<NodeJournal.Line>) -> AsyncStream<NodeJournal.Line?> {
        AsyncStream(bufferingPolicy: .bufferingNewest(4_096)) { continuation in
            let reader = Task {
                for await line in lines { continuation.yield(line) }
                continuation.finish()
            }
            let clock = Task {
                while !Task.isCancelled {
                    try? await Task.sleep(for: heartbeat)
                    continuation.yield(nil)
                }
            }
            continuation.onTermination = { _ in
                reader.cancel()
                clock.cancel()
            }
        }
    }
}

extension HTTPField.Name {
    /// `Last-Event-ID` of the HTML standard's server-sent events.
    fileprivate static let lastEventID = HTTPField.Name("Last-Event-ID")!
}
