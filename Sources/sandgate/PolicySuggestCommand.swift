import ArgumentParser
import Audit
import CLinux
import EgressPolicy
import FoundationEssentials
import Glibc
import NetPrimitives
import PolicyDocument
import PolicySuggestion
import Reactor

/// `sandgate policy suggest`: from what was recorded to the smallest policy under which it works.
struct PolicySuggestCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "suggest",
        abstract: "Make the smallest policy that would allow what was recorded.",
        usage:
            "sandgate policy suggest --audit FILE… [--policy BASE] [--collapse] [--threshold N] [-o FILE [--force]] [OPTIONS]",
        discussion: """
            Reads what sandgate run --audit recorded, best with --learn, where nothing but guard ranges is refused, or the \
            daemon's audit directory. Each name gets a line of its own with the ports that were used; addresses only \
            where no name led there. A comment says how often, by what and since when, and "review:" marks what \
            deserves a look: services that anybody can use, look-alike names, addresses, large uploads.

            Not suggested, but listed at the end: guard ranges, what a deny rule of BASE refuses, names that were only \
            looked up, what is below the threshold.

            A file that is there already is not replaced, unless it is BASE, which is completed so, or with --force.

            The exit status is 1 when a file cannot be read, holds something else than records, or is there already; a last \
            line that was cut off is passed over.

            EXAMPLES:
              sandgate run --learn --audit audit.jsonl -- make test
              sandgate policy suggest --audit audit.jsonl -o policy.yaml
              sandgate run --policy policy.yaml -- make test
              sandgate policy suggest --audit audit.jsonl --policy policy.yaml  # the rest
              sandgate policy suggest --audit /var/log/sandgate --sandbox box --since 1d
            """
    )

    @Option(
        parsing: .upToNextOption,
        help: ArgumentHelp("Read these files, or the daemon's audit directory; - is standard input.", valueName: "file")
    )
    var audit: [String]

    @Option(help: ArgumentHelp("Build upon this policy: its rules stay, in front.", valueName: "base"))
    var policy: String?

    @Flag(
        help: ArgumentHelp(
            "Make a wildcard of three or more names below one name, never where anybody can get a name or a bucket."
        )
    )
    var collapse = false

    @Option(help: ArgumentHelp("Leave out what was asked for less often.", valueName: "n"))
    var threshold: UInt64 = 1

    @Option(
        help: ArgumentHelp(
            "Only what is not older: 90s, 10m, 2h, 7d, or a time such as 2026-11-23T00:41:07Z.",
            valueName: "time"
        )
    )
    var since: String?

    @Option(help: ArgumentHelp("Only what this sandbox did.", valueName: "id"))
    var sandbox: String?

    @Flag(help: "Print one JSON object.")
    var json = false

    @Option(
        name: [.customShort("o"), .customLong("output")],
        help: ArgumentHelp("Write to this new file, or to BASE, instead of standard output.", valueName: "file")
    )
    var output: String?

    @Flag(help: "Replace the file of --output if it is there already.")
    var force = false

    func validate() throws {
        if audit.isEmpty { throw ValidationError("say what to read: --audit FILE") }
        if force, output == nil {
            throw ValidationError("--force is for a file that is written: name it with --output")
        }
        if let since, AuditQuery.since(parsing: since, now: .current) == nil {
            throw ValidationError("--since \(since): expected 90s, 10m, 2h, 7d or a time such as 2026-11-23T00:41:07Z")
        }
    }

    func run() throws {
        var options = PolicySuggester.Options()
        options.threshold = threshold
        options.collapses = collapse
        if let policy {
            options.base = try PolicyFile.load(
                policy,
                refusingSetup: "a policy with a set-up phase cannot be completed: give one without, and add the phase"
            ).policy
            options.baseName = Self.name(policy)
        }
        let observations = try RecordedTraffic(query: query).observations(in: audit)
        let suggested = PolicySuggester.suggest(from: observations, options: options, at: .current)
        let text: String
        if json {
            let encoder = JSONEncoder()
            encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
            text = String(decoding: try encoder.encode(suggested), as: UTF8.self) + "\n"
        } else {
            text = suggested.yaml(
                source: audit.map(Self.name).joined(separator: ", "),
                baseName: policy.map(Self.name)
            )
        }
        guard let output else {
            Console.write(STDOUT_FILENO, Array(text.utf8)[...])
            return
        }
        if force || output == policy, access(output, F_OK) == 0 {
            try ReplacedFile.write(Array(text.utf8), to: output)
        } else {
            let descriptor = try WrittenFile.create(output, unless: "say --force")
            do {
                try WrittenFile.write(text, to: descriptor, output)
            } catch {
                unlink(output)
                throw error
            }
        }
        Console.error("\(output): \(suggested.summary)")
    }

    /// A file's name as a policy tells it, which others read: the directories of this machine tell them nothing.
    private static func name(_ path: String) -> String {
        path == "-" ? "standard input" : path.split(separator: "/").last.map(String.init) ?? path
    }

    private var query: AuditQuery {
        AuditQuery(sandbox: sandbox, since: since.flatMap { AuditQuery.since(parsing: $0, now: .current) })
    }
}

/// Audit files and directories, as observations.
struct RecordedTraffic {
    let query: AuditQuery

    /// Everything in `paths` that is wanted. Throws, naming file and line, for a line that is no record: half a policy
    /// would look like a whole one. The last line of a file may be cut off.
    func observations(in paths: [String]) throws -> Observations {
        var observations = Observations()
        for path in paths {
            var status = stat()
            if path != "-", stat(path, &status) == 0, status.st_mode & S_IFMT == S_IFDIR {
                for file in try AuditListing.Source.directory(path).paths() {
                    try read(AuditReader(path: file), into: &observations)
                }
                let trail = try AuditTrailReader(directory: path, since: query.since)
                try read({ () throws(AuditError) in try trail.next() }, of: { trail.path }, into: &observations)
                takePartial(trail.partial, into: &observations)
            } else {
                try read(AuditReader(path: path), into: &observations)
            }
        }
        return observations
    }

    private func read(_ reader: AuditReader, into observations: inout Observations) throws {
        let name = reader.path == "-" ? "<stdin>" : reader.path
        try read({ () throws(AuditError) in try reader.next() }, of: { name }, into: &observations)
        takePartial(reader.partial, into: &observations)
    }

    private func read(
        _ next: () throws(AuditError) -> AuditReader.Line?,
        of path: () -> String,
        into observations: inout Observations
    ) throws {
        // A line that is no record is one that a crash cut off only where the next record tells of a loss.
        var malformed: SetupError?
        while let line = try next() {
            guard let record = try? AuditLine(parsing: line.bytes) else {
                malformed = malformed ?? SetupError("\(path()):\(line.number): not an audit record")
                continue
            }
            if let malformed, record.event != "audit.lost" { throw malformed }
            malformed = nil
            take(record, into: &observations)
        }
        if let malformed { throw malformed }
    }

    /// The last record may lack its newline still; what is less than a record was cut off.
    private func takePartial(_ bytes: ArraySlice<UInt8>, into observations: inout Observations) {
        if let record = try? AuditLine(parsing: bytes) { take(record, into: &observations) }
    }

    private func take(_ record: AuditLine, into observations: inout Observations) {
        if query.matches(record) { observations.observe(record) }
    }
}

extension SuggestedPolicy {
    /// One line about it.
    var summary: String {
        var text = policy.rules.count.counted("rule")
        if !base.rules.isEmpty { text += ", \(lines.count) of them new" }
        if reviewCount > 0 { text += "; \(reviewCount) marked \"review:\"" }
        if !omissions.isEmpty { text += "; \(omissions.count) asked for and not allowed, see its end" }
        return text
    }
}

/// Files that a command writes as a whole.
enum WrittenFile {
    /// Makes a file that is not there yet, for a text to come. `way` is what else to do where it is there, for messages.
    static func create(_ path: String, unless way: String) throws(SetupError) -> CInt {
        let descriptor = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0o666)
        guard descriptor >= 0 else {
            guard errno != EEXIST else { throw SetupError("\(path) is there already: name a new file, or \(way)") }
            throw SetupError("cannot write \(path): \(String(cString: strerror(errno)))")
        }
        return descriptor
    }

    /// Writes all of `text` to a file and closes it. `path` is for messages.
    static func write(_ text: String, to descriptor: CInt, _ path: String) throws(SetupError) {
        var rest = Array(text.utf8)[...]
        var failure: CInt?
        while !rest.isEmpty {
            let count = rest.withUnsafeBytes { Glibc.write(descriptor, $0.baseAddress, $0.count) }
            if count >= 0 {
                rest = rest.dropFirst(count)
            } else if errno != EINTR {
                failure = errno
                break
            }
        }
        if close(descriptor) != 0, failure == nil { failure = errno }
        if let failure { throw SetupError("cannot write \(path): \(String(cString: strerror(failure)))") }
    }
}
