import ArgumentParser
import Audit
import Logging

/// What Sandgate says of its own work, for whoever looks for a fault: on standard error, never mixed with the audit.
enum Diagnostics {
    /// Reads a level from the command line.
    static func level(_ text: String) throws -> Logger.Level {
        guard let level = Logger.Level(rawValue: text) else {
            let levels = Logger.Level.allCases.map(\.rawValue).joined(separator: ", ")
            throw ValidationError("expected one of \(levels)")
        }
        return level
    }

    /// Everything from `level` on is told. Called once, before anything is logged.
    static func start(level: Logger.Level) {
        LoggingSystem.bootstrap { ConsoleLog(label: $0, logLevel: level) }
    }
}

/// One line a message: `sandgate: debug: self-test passed (milliseconds: 42)`.
private struct ConsoleLog: LogHandler {
    let label: String
    var logLevel: Logger.Level
    var metadata: Logger.Metadata = [:]

    init(label: String, logLevel: Logger.Level) {
        self.label = label
        self.logLevel = logLevel
    }

    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    func log(event: LogEvent) {
        let details = metadata.merging(event.metadata ?? [:]) { _, new in new }
            .sorted { $0.key < $1.key }
            .map { "\($0.key): \(Printable.text("\($0.value)", limit: 16_384))" }
            .joined(separator: ", ")
        Console.error("\(event.level): \(event.message)" + (details.isEmpty ? "" : " (\(details))"))
    }
}
