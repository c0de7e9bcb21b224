import Audit
import EgressCore
import NetPrimitives
import Reactor

/// What a run tells: the audit file, a line on standard error for each new refusal, the table at the end.
final class RunJournal {
    private static let flushNanoseconds: UInt64 = 200_000_000
    /// So many distinct refusals are told as they happen; the table has the rest.
    private static let maximumLines = 200

    private let log: AuditLog?
    private let isQuiet: Bool
    private let colour = Console.hasColour
    private var summary = DenialSummary()
    private var told: Set<String> = []

    init(auditPath: String?, isQuiet: Bool) throws {
        self.log = try auditPath.map { try AuditLog(path: $0) }
        self.isQuiet = isQuiet
    }

    /// Takes one event.
    func record(_ event: AuditEvent) {
        log?.append(event)
        guard !isQuiet else { return }
        summary.observe(event)
        guard told.count < Self.maximumLines, let line = HumanLine.text(for: event, colour: colour) else { return }
        if told.insert(line).inserted { Console.errorText(line + "\n") }
    }

    /// Keeps the file close to what has happened.
    func flushRegularly(on loop: EventLoop) {
        guard log != nil else { return }
        _ = loop.schedule(at: loop.now.advanced(byNanoseconds: Self.flushNanoseconds)) { [weak self, unowned loop] in
            self?.log?.flush()
            self?.flushRegularly(on: loop)
        }
    }

    /// Closes the file and prints the table.
    func finish() {
        log?.close()
        if let log, log.lostRecords > 0 {
            let cause = log.lastFailure.map { ": \($0)" } ?? ""
            Console.error("\(log.lostRecords) records could not be written to the audit file\(cause)")
        }
        guard !isQuiet else { return }
        Console.errorText(summary.render(colour: colour))
    }
}
